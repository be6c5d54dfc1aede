// Likelihoods of preference pairs under the reference model, measured once and kept in a file. The model that they are measured
// with is not needed afterwards.
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { exists, makeFolder, readJsonObject, writeTextAtomically } from '../checkpoint/file.ts'
import { type InferenceParameter, UserError } from '../core/types.ts'
import type { PackOptions } from '../data/pack.ts'
import { type PairDocuments, pairBatches, type ReferenceOf } from '../data/pairs.ts'
import type { PairLikelihoods } from '../data/types.ts'
import { canonicalJson } from '../formats/json-differences.ts'
import type { Model } from '../models/types.ts'
import type { PairDrawing, PreferenceTrainer } from '../train/preference.ts'

/** Pairs and their epochs; held-out ones have epoch 0. */
export interface PairsToMeasure extends PairDrawing {
  pairs: readonly { pair: PairDocuments; epoch: number }[]
}

export interface ReferenceOptions {
  trainer: Pick<PreferenceTrainer, 'likelihoods'>
  training: PairsToMeasure
  heldOut: PairsToMeasure
  packing: PackOptions
  /** Holds the file; made where it does not exist. */
  folder: string
  /** What the likelihoods depend on: `referenceKey`. */
  key: string
  signal?: AbortSignal | undefined
  onProgress?: (pairs: number, total: number) => void
}

/** Seconds between two writes of the file. */
const WRITE_EVERY = 20

type Entry = [chosen: number, rejected: number]

/**
 * Measures what the file does not hold yet; undefined where the signal was aborted. What was measured by then is kept, and the
 * file is replaced as a whole. Batches are made of all pairs, so that one that is resumed has the same bits.
 */
export async function measureReference(
  options: ReferenceOptions,
): Promise<{ training: ReferenceOf; heldOut: ReferenceOf } | undefined> {
  const { trainer, packing, folder, key, signal, onProgress = () => undefined } = options
  const path = join(folder, `${key}.json`)
  const known = await readEntries(path)
  const total = options.training.pairs.length + options.heldOut.pairs.length
  let writtenAt = performance.now()
  let unwritten = 0
  let done = 0

  async function write(): Promise<void> {
    await makeFolder(folder)
    await writeTextAtomically(path, JSON.stringify({ format: 1, pairs: Object.fromEntries(known) }))
    writtenAt = performance.now()
    unwritten = 0
  }

  for (const [name, { pairs, heldOut }] of [
    ['training', options.training],
    ['held-out', options.heldOut],
  ] as const)
    for (const batch of pairBatches(pairs, packing)) {
      const names = (batch.pairs ?? []).map(({ id, epoch }) => entryName(name, id, epoch))
      if (!names.every((entry) => known.has(entry))) {
        if (signal?.aborted) {
          if (unwritten > 0) await write()
          return undefined
        }
        for (const [i, { chosen, rejected }] of (await trainer.likelihoods(batch, { heldOut })).entries()) {
          if (!Number.isFinite(chosen) || !Number.isFinite(rejected))
            throw new UserError(`the reference model gives ${batch.documentIds[2 * i]} no finite likelihood`)
          known.set(names[i]!, [chosen, rejected])
        }
        unwritten += names.length
        if (performance.now() - writtenAt > WRITE_EVERY * 1000) await write()
      }
      done += names.length
      onProgress(done, total)
    }
  if (unwritten > 0) await write()
  const reference =
    (name: string): ReferenceOf =>
    (id, epoch): PairLikelihoods | undefined => {
      const entry = known.get(entryName(name, id, epoch))
      return entry && { chosen: entry[0], rejected: entry[1] }
    }
  return { training: reference('training'), heldOut: reference('held-out') }
}

const entryName = (name: string, id: number, epoch: number): string => `${name} ${id} ${epoch}`

async function readEntries(path: string): Promise<Map<string, Entry>> {
  if (!(await exists(path))) return new Map()
  const { format, pairs } = await readJsonObject(path)
  const entries = typeof pairs === 'object' && pairs !== null ? Object.entries(pairs) : []
  const isEntry = (value: unknown): value is Entry =>
    Array.isArray(value) && value.length === 2 && value.every((number) => Number.isFinite(number))
  if (format !== 1 || !entries.every(([, value]) => isEntry(value)))
    throw new UserError(`${path}: is no file of likelihoods; delete it, and they are measured again`)
  return new Map(entries as [string, Entry][])
}

/** A name for likelihoods of these pairs under this model, measured with these settings. */
export async function referenceKey(
  model: Model,
  parameters: ReadonlyMap<string, InferenceParameter>,
  pairs: readonly PairDocuments[],
  settings: Readonly<Record<string, unknown>>,
): Promise<string> {
  const hash = createHash('sha256').update(canonicalJson({ config: model.config, settings }))
  const bytes = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => new Uint8Array(buffer, byteOffset, byteLength)
  for (const [name, parameter] of parameters) {
    hash.update(`\0${name}\0${parameter.shape}\0`)
    // Values, or the packed numbers and scales of a quantised matrix.
    for (const part of Object.values('read' in parameter && parameter.read ? await parameter.read() : parameter))
      if (ArrayBuffer.isView(part)) hash.update(bytes(part))
  }
  for (const { id, chosen, rejected } of pairs)
    for (const { ids, maskable } of [chosen, rejected])
      hash.update(`\0${id} ${ids.length}\0`).update(bytes(ids)).update(bytes(maskable))
  return hash.digest('hex').slice(0, 32)
}
