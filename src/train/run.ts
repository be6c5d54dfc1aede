// A training that runs, and what it leaves on the disk: lines of metrics, validations, checkpoints.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Spent } from '../account/account.ts'
import { type EnergyMeter, energyMeter } from '../account/energy.ts'
import { UserError } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import { scheduleTokens } from '../diffusion/schedule.ts'
import { checkpointPath, pruneCheckpoints, saveTrainingCheckpoint, type TrainerState } from './checkpoint.ts'
import { TrainingDiverged } from './divergence.ts'
import type { TrainEvent, TrainOptions } from './loop.ts'
import { type MetricsFile, type MetricsRecord, openMetrics } from './metrics.ts'
import { configHash, type Progress, runConfig, startOrResume } from './resume.ts'
import { checkLearningRate } from './schedule.ts'
import type { Evaluation } from './types.ts'

export interface Run {
  readonly options: TrainOptions
  /** What `runConfig` returned. */
  readonly config: Record<string, unknown>
  readonly settings: ReturnType<typeof settingsOf>
  readonly progress: Progress
  readonly metrics: MetricsFile
  readonly energy: EnergyMeter | undefined
  /** When this process began, in milliseconds of `performance.now`. */
  readonly startedAt: number
  /** As of the newest checkpoint. */
  accounted: Spent
  onEvent(event: TrainEvent): void
}

/** What a step says of itself in metrics.jsonl. */
export type StepLine = Pick<MetricsRecord, 'block_size'> & Partial<MetricsRecord>

/** Opens the run's folder and restores its newest checkpoint where it is resumed. Throws UserError as `startOrResume`. */
export async function startRun(options: TrainOptions): Promise<Run> {
  const { runDirectory, onEvent = () => undefined } = options
  const settings = settingsOf(options)
  const config = runConfig(options)
  await mkdir(runDirectory, { recursive: true })
  const progress = await startOrResume(options, config)
  const { tokens, flops, elapsedBefore: seconds, joulesBefore: joules } = progress
  return {
    ...{ options, settings, config, progress, onEvent },
    metrics: await openMetrics(join(runDirectory, 'metrics.jsonl'), progress.savedStep ?? -1),
    energy: await energyMeter(),
    startedAt: performance.now(),
    accounted: { tokens, flops, seconds, joules },
  }
}

async function spent({ progress, energy, startedAt }: Run): Promise<Spent> {
  const { tokens, flops, elapsedBefore, joulesBefore } = progress
  const joules = energy && joulesBefore !== undefined ? joulesBefore + (await energy()) : undefined
  return { tokens, flops, seconds: elapsedBefore + (performance.now() - startedAt) / 1000, joules }
}

function bytesOf(batches: readonly Batch[]): number {
  return batches.reduce((sum, batch) => sum + batch.bytes, 0)
}

/** The settings of options, with defaults where they say nothing. Throws UserError where one is out of range. */
function settingsOf(options: TrainOptions) {
  checkLearningRate(options.learningRate)
  const { accumulation = 1, validateEvery = 100, saveEvery = 500, logEvery = 1, keepLast = 2, keepBest = 3 } = options
  const { earlyStop = 0, divergenceFactor = 20, targetBlockSize = options.schedule.at(-1)?.blockSize } = options
  const limits = [
    ['accumulation', accumulation, 1],
    ['log_steps', logEvery, 1],
    ['keep_last', keepLast, 1],
    ['keep_best', keepBest, earlyStop > 0 ? 1 : 0],
    ['eval_steps', validateEvery, 0],
    ['save_steps', saveEvery, 0],
  ] as const
  for (const [key, value, least] of limits) {
    if (!(Number.isSafeInteger(value) && value >= least)) {
      throw new UserError(`${key} is ${value}; give a whole number of at least ${least}.`)
    }
  }
  if (targetBlockSize === undefined || options.schedule.length === 0)
    throw new UserError('The schedule of block sizes is empty.')
  if (options.validation.length > 0 && bytesOf(options.validation) === 0) {
    throw new UserError('The validation data hold no text that the model would predict; name other files.')
  }
  return {
    ...{ accumulation, validateEvery, saveEvery, logEvery, keepLast, keepBest },
    ...{ earlyStop, divergenceFactor, targetBlockSize },
  }
}

/** The newest checkpoint. */
export const lastCheckpoint = ({ progress: { savedStep }, options }: Run): string | undefined =>
  savedStep === undefined ? undefined : checkpointPath(options.runDirectory, savedStep)

/** Whether all tokens have been seen, or nothing has become better for long enough. */
export function isDone({ progress, options: { schedule }, settings: { earlyStop } }: Run): boolean {
  return progress.tokens >= scheduleTokens(schedule) || (earlyStop > 0 && progress.stale >= earlyStop)
}

/** Writes a line of metrics.jsonl, with the validation where there was one. */
export async function record(run: Run, step: StepLine, validated: boolean): Promise<void> {
  const { baseline, validation, stage } = run.progress
  const { tokens, flops, seconds, joules } = await spent(run)
  await run.metrics.append({
    step: run.progress.step,
    tokens,
    stage,
    ...step,
    ...(validated && validation ? validationRecord(validation) : {}),
    ...(validated && baseline ? { ar_nll: baseline.nll, ar_bits_per_byte: baseline.bitsPerByte } : {}),
    rss_bytes: process.memoryUsage.rss(),
    peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
    energy_j: joules,
    flops,
    elapsed_s: seconds,
  })
}

export const evaluate = ({ options }: Run, blockSize: number | 'ar'): Promise<Evaluation> =>
  options.trainer.evaluate(options.validation, {
    ...{ blockSize, seed: options.seed, samples: options.validationSamples },
  })

/** Measures the held-out text. Throws TrainingDiverged, with the documents of the last step, where its loss is not finite. */
export async function validate(run: Run, documentIds: readonly string[]): Promise<void> {
  const { progress, settings } = run
  const { targetBlockSize: blockSize } = settings
  const { step, tokens } = progress
  const validation = await evaluate(run, blockSize)
  if (!Number.isFinite(validation.nll))
    throw new TrainingDiverged(`the validation loss is ${validation.nll}`, step, documentIds, lastCheckpoint(run))
  progress.validation = validation
  run.onEvent({ type: 'validation', step, tokens, blockSize, validation })
}

/** Writes a checkpoint, and deletes those that are not to be kept. */
export async function save(run: Run, validated: boolean): Promise<void> {
  const { progress, options, config } = run
  const { keepLast, keepBest } = run.settings
  const { runDirectory } = options
  const { step, tokens, stage, position, recent, baseline } = progress
  const validation = validated ? progress.validation : null
  if (validation) {
    progress.best = rankedBest([...progress.best, { step, nelbo: validation.nll }], keepBest)
    progress.stale = progress.best[0]?.step === step ? 0 : progress.stale + 1
  }
  await run.metrics.flush()
  const used = await spent(run)
  const state: Omit<TrainerState, 'optimizer_step'> = {
    ...{ format: 1, step, tokens, stage, data_position: position },
    ...{ elapsed_s: used.seconds, flops: used.flops, energy_j: used.joules },
    ...{ validation, baseline, best: progress.best, stale: progress.stale, recent },
    ...{ config, config_hash: configHash(config) },
    versions: { node: process.version, platform: `${process.platform}-${process.arch}`, ...options.versions },
  }
  const path = await saveTrainingCheckpoint(runDirectory, options.trainer, state, options.files?.(used))
  progress.savedStep = step
  run.accounted = used
  await pruneCheckpoints(runDirectory, { step, keepLast, keepSteps: progress.best.map((entry) => entry.step) })
  run.onEvent({ type: 'checkpoint', step, path })
}

function validationRecord({ nll, stderr, bitsPerByte, bitsPerByteStderr, metrics }: Evaluation) {
  if (metrics) return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`validation_${name}`, value]))
  return { nelbo: nll, nelbo_stderr: stderr, bits_per_byte: bitsPerByte, bits_per_byte_stderr: bitsPerByteStderr }
}

function rankedBest(entries: TrainerState['best'], count: number): TrainerState['best'] {
  return [...entries].sort((a, b) => a.nelbo - b.nelbo || a.step - b.step).slice(0, count)
}
