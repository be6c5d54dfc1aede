// Averages checkpoints of one model into one. Knows tensors and settings by name only.
import { copyFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { cardFiles } from '../account/card.ts'
import { derivedRecord } from '../account/record.ts'
import { exists, readJsonObject, writeTextAtomically } from '../checkpoint/file.ts'
import { claimOutput, makeCheckpointFolder } from '../checkpoint/index.ts'
import type { SafetensorsFile } from '../checkpoint/safetensors.ts'
import { type DeferredParameter, type StoredDType, writeShardedSafetensors } from '../checkpoint/safetensors-write.ts'
import { type ModelConfig, UserError } from '../core/types.ts'
import { shownJson } from '../formats/json.ts'
import { jsonDifferences } from '../formats/json-differences.ts'
import { checkpointPath, latestCheckpoint, readState } from './checkpoint.ts'
import { openWeights } from './trained-files.ts'

/**
 * Writes the arithmetic mean of all parameters of the checkpoints (LLaDA2.0, section 4.3), one tensor in memory at a
 * time, and beside it the small files of the first (config.json, the tokenizer ...).
 *
 * @param paths Folders in Hugging Face layout, for example those of the k best checkpoints of a run; at least one.
 * @param out Folder to be made; it appears only when it is whole. It must not exist, or be empty; `force`: a checkpoint in it
 *   is replaced. Never one of the checkpoints, nor in or around one.
 * @throws UserError where the checkpoints differ in tensors, shapes or settings of config.json, or `out` may not be written.
 */
export async function mergeCheckpoints(
  paths: readonly string[],
  out: string,
  { dtype, force, command = 'unmask merge' }: { dtype?: StoredDType; force?: boolean; command?: string } = {},
): Promise<void> {
  const [firstPath] = paths
  if (firstPath === undefined) throw new UserError('There is no checkpoint to merge; name at least one.')
  await claimOutput(out, { inputs: paths, force })
  const config = await checkConfigs(paths)
  const base = { name: firstPath, path: firstPath }
  const settings = { checkpoints: paths, dtype }
  const record = await derivedRecord({ method: 'merge', command, base, settings, signal: undefined })

  const files: SafetensorsFile[] = []
  try {
    for (const path of paths) files.push(await openWeights(path))
    const merged = meanOf(files)
    await makeCheckpointFolder(out, async (folder) => {
      await writeShardedSafetensors(folder, merged, { dtype })
      for (const name of await readdir(firstPath))
        if (/\.(json|txt|jinja|model)$/.test(name) && !/^(trainer_state|provenance)\.json$|\.index\.json$/.test(name))
          await copyFile(join(firstPath, name), join(folder, name))
      if (config)
        for (const [name, text] of Object.entries(cardFiles(record, { config: config as ModelConfig })))
          await writeTextAtomically(join(folder, name), text)
    })
  } finally {
    for (const file of files) await file.close()
  }
}

/** Keys of a config.json that say nothing about what the weights compute. */
const notes = ['_name_or_path', 'transformers_version', 'dtype', 'torch_dtype', 'use_cache']

/** The config.json of the folders, as far as they have one. Throws where they are not of one model. */
async function checkConfigs(paths: readonly string[]): Promise<Record<string, unknown> | undefined> {
  let first: { path: string; config: Record<string, unknown> } | undefined
  for (const path of paths) {
    const file = join(path, 'config.json')
    if (!(await exists(file))) continue
    const config = await readJsonObject(file)
    first ??= { path, config }
    const differing = jsonDifferences(config, first.config).filter(({ path }) => !notes.includes(path))
    if (differing.length === 0) continue
    const shown = differing.map(({ path, a, b }) => `${path} ${shownJson(a)} (there ${shownJson(b)})`)
    throw new UserError(`${file}: differs from that of ${first.path}: ${shown.join(', ')}`)
  }
  return first?.config
}

function meanOf(files: readonly SafetensorsFile[]): Map<string, DeferredParameter> {
  const [first, ...others] = files as [SafetensorsFile, ...SafetensorsFile[]]
  for (const other of others) {
    for (const name of other.tensors.keys()) {
      if (!first.tensors.has(name)) throw new UserError(`${other.path}: tensor ${name} is not in ${first.path}.`)
    }
    for (const { name, shape } of first.tensors.values()) {
      const info = other.tensors.get(name)
      if (!info) throw new UserError(`${other.path}: tensor ${name} of ${first.path} is missing.`)
      if (info.shape.join() !== shape.join()) {
        throw new UserError(
          `${other.path}: tensor ${name} has the shape [${info.shape.join(', ')}], in ${first.path} it is [${shape.join(', ')}].`,
        )
      }
    }
  }
  const merged = new Map<string, DeferredParameter>()
  for (const { name, shape } of first.tensors.values()) {
    merged.set(name, {
      shape,
      read: async () => {
        const sum = Float64Array.from(await first.read(name))
        for (const other of others) {
          const values = await other.read(name)
          for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!
        }
        return Float32Array.from(sum, (value) => value / files.length)
      },
    })
  }
  return merged
}

/** The k best checkpoints that a run has kept, best first. Throws UserError where it has fewer. */
export async function bestCheckpoints(run: string, k: number): Promise<string[]> {
  const latest = await latestCheckpoint(run)
  if (!latest) throw new UserError(`${run}: no checkpoints in it; name the folder that convert wrote (output_dir)`)
  const { best } = await readState(latest.path)
  if (best.length < k) {
    throw new UserError(
      `${run}: has kept ${best.length} evaluated checkpoints, fewer than ${k}; see keep_best and save_steps`,
    )
  }
  return best.slice(0, k).map(({ step }) => checkpointPath(run, step))
}
