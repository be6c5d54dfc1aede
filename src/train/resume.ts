// How a run begins: anew, or from its newest checkpoint, and only with the settings that it was started with.
import { createHash } from 'node:crypto'
import { UserError } from '../core/types.ts'
import type { DataPosition } from '../data/types.ts'
import { shownJson } from '../formats/json.ts'
import { canonicalJson, jsonDifferences } from '../formats/json-differences.ts'
import { latestCheckpoint, listCheckpoints, readState, removeLeftovers, type TrainerState } from './checkpoint.ts'
import type { TrainOptions } from './loop.ts'
import type { Evaluation } from './types.ts'

/** What changes from step to step, beside what the trainer holds. */
export interface Progress {
  step: number
  tokens: number
  stage: number
  position: DataPosition
  recent: TrainerState['recent']
  best: TrainerState['best']
  /** Validated checkpoints since the best one. */
  stale: number
  baseline: Evaluation | null
  validation: Evaluation | null
  /** Seconds of the run before this process. */
  elapsedBefore: number
  /** Joules of the run before this process; undefined where they were not all reported. */
  joulesBefore: number | undefined
  /** Estimated operations of the updates so far. */
  flops: number
  /** Step of the newest checkpoint on the disk. */
  savedStep: number | undefined
}

/**
 * Restores the newest checkpoint into trainer and data, or starts anew.
 *
 * @param config What `runConfig` returned.
 * @throws UserError where the folder holds a run that is not to be resumed, or one with other settings.
 */
export async function startOrResume(options: TrainOptions, config: Record<string, unknown>): Promise<Progress> {
  const { runDirectory, onEvent = () => undefined } = options
  const existing = await listCheckpoints(runDirectory)
  if (!options.resume && existing.length > 0) {
    throw new UserError(`${runDirectory} holds checkpoints of a run already; resume it, or name another folder.`)
  }
  await removeLeftovers(runDirectory)
  const entry = await latestCheckpoint(runDirectory, (path, reason) =>
    onEvent({ type: 'warning', message: `The checkpoint ${path} is damaged and is passed over: ${reason}` }),
  )
  if (!entry) {
    return {
      step: 0,
      tokens: 0,
      stage: 0,
      position: structuredClone(options.source.position()),
      recent: { losses: [], gradNorms: [] },
      best: [],
      stale: 0,
      baseline: options.baseline ?? null,
      validation: null,
      elapsedBefore: 0,
      joulesBefore: 0,
      flops: 0,
      savedStep: undefined,
    }
  }

  const state = await readState(entry.path)
  if (state.config_hash !== configHash(config)) {
    const shown = jsonDifferences(config, state.config).map(
      ({ path, a, b }) => `${path}: ${shownJson(a)}, there ${shownJson(b)}`,
    )
    throw new UserError(
      `${entry.path} was trained with other settings (${shown.join('; ')}); resume with the same ones, or start in another folder.`,
    )
  }
  await options.source.restore(state.data_position)
  await options.trainer.restore(entry.path, state.optimizer_step)
  const steps = new Set(existing.map(({ step }) => step))
  return {
    step: state.step,
    tokens: state.tokens,
    stage: state.stage,
    position: state.data_position,
    recent: state.recent,
    best: state.best.filter(({ step }) => steps.has(step)),
    stale: state.stale ?? 0,
    baseline: state.baseline,
    validation: state.validation,
    elapsedBefore: state.elapsed_s,
    joulesBefore: state.energy_j,
    flops: state.flops ?? 0,
    savedStep: state.step,
  }
}

/** What of a run's options its weights depend on. */
export type RunSettings = Pick<
  TrainOptions,
  'config' | 'schedule' | 'seed' | 'accumulation' | 'learningRate' | 'embeddingNoise'
>

/** What `runConfig` returned for the newest checkpoint of a run; undefined where there is none. */
export async function recordedConfig(runDirectory: string): Promise<Record<string, unknown> | undefined> {
  const entry = await latestCheckpoint(runDirectory)
  return entry && (await readState(entry.path)).config
}

/** The settings that the weights of a run depend on, as plain JSON. */
export function runConfig(options: RunSettings): Record<string, unknown> {
  const config = {
    ...options.config,
    schedule: options.schedule,
    seed: options.seed,
    accumulation: options.accumulation ?? 1,
    learningRate: options.learningRate,
    embeddingNoise: options.embeddingNoise ?? null,
  }
  return JSON.parse(JSON.stringify(config)) as Record<string, unknown>
}

/** SHA-256 of the settings as JSON with sorted keys: the order of keys and keys that are undefined do not matter. */
export function configHash(config: Readonly<Record<string, unknown>>): string {
  return createHash('sha256').update(canonicalJson(config)).digest('hex')
}
