// Training checkpoints in a run folder: written whole or not at all, found again, pruned. Knows nothing about training.
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  errorCode,
  exists,
  readJsonObject,
  syncFolder,
  temporaryName,
  writeTextAtomically,
} from '../checkpoint/file.ts'
import { UserError } from '../core/types.ts'
import type { DataPosition } from '../data/types.ts'
import { isRecord } from '../formats/json.ts'
import type { RecentSteps } from './divergence.ts'
import { checkTrainedFiles } from './trained-files.ts'
import type { Evaluation, Trainer } from './types.ts'

/** trainer_state.json: what a run needs beside weights and moments to continue exactly. */
export interface TrainerState {
  format: 1
  /** Updates done. */
  step: number
  /** Clean training tokens seen. */
  tokens: number
  /** Index of the stage of the last update. */
  stage: number
  /** Updates that the optimiser has counted. */
  optimizer_step: number
  data_position: DataPosition
  /** Seconds of the whole run, interruptions not counted. */
  elapsed_s: number
  /** Estimated floating-point operations of the updates; missing in checkpoints of earlier versions. */
  flops?: number
  /** Energy of the whole run in joules; missing where the machine has not reported all of it. */
  energy_j?: number | undefined
  /** Validation of this checkpoint; null where none was due. */
  validation: Evaluation | null
  /** Causal evaluation of the base model before training; null where it was not measured. */
  baseline: Evaluation | null
  /** Checkpoints with the lowest negative ELBO so far, best first. */
  best: { step: number; nelbo: number }[]
  /** Validated checkpoints since the best one; missing in checkpoints of earlier versions. */
  stale?: number
  recent: RecentSteps
  /** The settings that must be the same for the run to continue, and their SHA-256. */
  config: Record<string, unknown>
  config_hash: string
  versions: Record<string, string>
}

export interface CheckpointEntry {
  step: number
  path: string
}

const stateFile = 'trainer_state.json'

const checkpointsFolder = (runDirectory: string): string => join(runDirectory, 'checkpoints')

/** `checkpoints/step-0000100` of the run folder. */
export const checkpointPath = (runDirectory: string, step: number): string =>
  join(checkpointsFolder(runDirectory), `step-${String(step).padStart(7, '0')}`)

/**
 * Writes `checkpoints/step-NNNNNNN/`: the weights as float32 safetensors, the optimiser's moments, trainer_state.json and
 * `files` (name -> text: config.json, tokenizer.json ..., so that the folder loads as a model). All of it is written and
 * synced under a hidden name, then renamed: a folder of that name is whole. An older one of the same step is replaced.
 *
 * @returns The folder.
 */
export async function saveTrainingCheckpoint(
  runDirectory: string,
  trainer: Pick<Trainer, 'save'>,
  state: Omit<TrainerState, 'optimizer_step'>,
  files: Readonly<Record<string, string>> = {},
): Promise<string> {
  const path = checkpointPath(runDirectory, state.step)
  await mkdir(checkpointsFolder(runDirectory), { recursive: true })
  const temporary = temporaryName(path)
  await mkdir(temporary)
  try {
    const optimizerStep = await trainer.save(temporary)
    for (const [name, text] of Object.entries(files)) await writeTextAtomically(join(temporary, name), text)
    const written: TrainerState = { ...state, optimizer_step: optimizerStep }
    await writeTextAtomically(join(temporary, stateFile), `${JSON.stringify(written, null, 2)}\n`)
    const replaced = temporaryName(path)
    if (await exists(path)) await rename(path, replaced)
    await rename(temporary, path)
    await syncFolder(checkpointsFolder(runDirectory))
    await rm(replaced, { recursive: true, force: true })
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
  return path
}

/** The checkpoints of a run, oldest first. Folders that are still being written have another name and are not listed. */
export async function listCheckpoints(runDirectory: string): Promise<CheckpointEntry[]> {
  const folder = checkpointsFolder(runDirectory)
  const entries: CheckpointEntry[] = []
  for (const name of await listFolder(folder)) {
    const match = /^step-(\d{7,15})$/.exec(name)
    if (match) entries.push({ step: Number(match[1]), path: join(folder, name) })
  }
  return entries.sort((a, b) => a.step - b.step)
}

/**
 * The newest checkpoint that can be read, undefined where there is none. A folder that has been damaged since it was
 * written (a missing or truncated file) is passed over, and `onDamaged` gets the reason.
 */
export async function latestCheckpoint(
  runDirectory: string,
  onDamaged: (path: string, reason: string) => void = () => undefined,
): Promise<CheckpointEntry | undefined> {
  for (const entry of (await listCheckpoints(runDirectory)).reverse()) {
    try {
      await readState(entry.path)
      await checkTrainedFiles(entry.path)
      return entry
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      onDamaged(entry.path, error.message)
    }
  }
  return undefined
}

/** Reads trainer_state.json. Throws UserError where it is missing or not one of this version. */
export async function readState(path: string): Promise<TrainerState> {
  const file = join(path, stateFile)
  const state = await readJsonObject(file)
  if (state.format !== 1) {
    throw new UserError(
      `${file}: format ${JSON.stringify(state.format)} is not known to this version; it reads format 1.`,
    )
  }
  const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0
  const counts = ['step', 'tokens', 'stage', 'optimizer_step'] as const
  const records = ['data_position', 'recent', 'config', 'versions'] as const
  const wrong = [
    ...counts.filter((key) => !isCount(state[key])),
    ...records.filter((key) => !isRecord(state[key])),
    ...(Array.isArray(state.best) ? [] : ['best']),
    ...(typeof state.config_hash === 'string' ? [] : ['config_hash']),
  ]
  if (wrong.length > 0) throw new UserError(`${file}: ${wrong.join(', ')}: missing or not of the right type.`)
  return state as unknown as TrainerState
}

/**
 * Removes checkpoints: of those up to `step`, which has just been saved, all but the last `keepLast` (at least one) and
 * those of the steps in `keepSteps`. Later ones, which a resumed run has passed over as damaged, are not touched.
 */
export async function pruneCheckpoints(
  runDirectory: string,
  keep: { step: number; keepLast: number; keepSteps: readonly number[] },
): Promise<void> {
  const entries = (await listCheckpoints(runDirectory)).filter(({ step }) => step <= keep.step)
  const kept = new Set([...entries.slice(-Math.max(1, keep.keepLast)).map(({ step }) => step), ...keep.keepSteps])
  for (const { step, path } of entries) {
    if (kept.has(step)) continue
    // Under its own name a folder is whole, also while it is being removed.
    const doomed = temporaryName(path)
    await rename(path, doomed)
    await rm(doomed, { recursive: true, force: true })
  }
}

/** Removes what interrupted writes and removals left behind. To be called while nothing writes to the run folder. */
export async function removeLeftovers(runDirectory: string): Promise<void> {
  const folder = checkpointsFolder(runDirectory)
  for (const name of await listFolder(folder)) {
    if (/^\.step-\d+\..*\.tmp$/.test(name)) await rm(join(folder, name), { recursive: true, force: true })
  }
}

async function listFolder(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  }
}
