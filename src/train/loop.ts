// The training loop: data, learning rate, block size, validation, checkpoints and resume around a compiled step.
// Knows nothing about models, graphs or how the loss is computed.
import type { Spent } from '../account/account.ts'
import { UserError } from '../core/types.ts'
import type { Batch, BatchSource, DataPosition } from '../data/types.ts'
import { type EmbeddingNoise, embeddingNoise } from '../diffusion/mask-token.ts'
import { type Stage, scheduleTokens, stageAt } from '../diffusion/schedule.ts'
import { checkpointPath, readState } from './checkpoint.ts'
import { observeStep, TrainingDiverged } from './divergence.ts'
import { evaluate, isDone, lastCheckpoint, type Run, record, type StepLine, save, startRun, validate } from './run.ts'
import { type LearningRateOptions, learningRateAt } from './schedule.ts'
import type { Evaluation, Metric, Trainer } from './types.ts'

export { TrainingDiverged } from './divergence.ts'

export interface TrainOptions {
  trainer: Trainer
  source: BatchSource
  /** Held-out batches; none means no validation. */
  validation: readonly Batch[]
  /** Block sizes and their tokens. The run ends after the step that reaches the sum of the tokens. */
  schedule: readonly Stage[]
  /** Every random draw is a function of it and of counters. */
  seed: number
  learningRate: LearningRateOptions
  /** Micro-batches per update. Default 1. */
  accumulation?: number
  /** Noise on the embeddings of masked positions. Default none. */
  embeddingNoise?: EmbeddingNoise
  /** Block size of the validation: the one of decoding. `ar` for a causal model. Default the schedule's last. */
  targetBlockSize?: number | 'ar'
  /** Validate every n updates, beside before the first and with every checkpoint of `saveEvery`. 0 for no more. Default 100. */
  validateEvery?: number
  /** Noise draws per block of a validation. Default what the trainer takes. */
  validationSamples?: number
  /** Save every n updates, beside at the end and on abort. 0 for no more. Default 500. */
  saveEvery?: number
  /** Write every nth update, and each with a validation, to metrics.jsonl. Default 1. */
  logEvery?: number
  /** Checkpoints to keep: the newest n (default 2), and the n of lowest NELBO (default 3). */
  keepLast?: number
  keepBest?: number
  /**
   * End the run after so many validated checkpoints without a lower NELBO, and give the best one as its result, whenever it ends.
   * 0, the default: never, and the result is the last.
   */
  earlyStop?: number
  /** How many times the usual loss or gradient norm counts as exploding; see `observeStep`. Default 20. */
  divergenceFactor?: number
  /** Causal evaluation of the base model. Default: measured before the first step; null for none. */
  baseline?: Evaluation | null
  /** Holds metrics.jsonl and checkpoints/. Made where it does not exist. */
  runDirectory: string
  /** Continue from the newest checkpoint, or from the start where there is none yet. Default false. */
  resume?: boolean
  /** Further settings of the run (model, data, noise ...): JSON; a run is only resumed with the same. */
  config?: Readonly<Record<string, unknown>>
  /** Small files of a checkpoint's folder: those that make it a model (config.json ...), and what it came from and has cost. */
  files?: (spent: Spent) => Readonly<Record<string, string>>
  /** Versions to record in a checkpoint, beside Node's. */
  versions?: Readonly<Record<string, string>>
  /** On abort the step under way is finished and saved. */
  signal?: AbortSignal
  onEvent?: (event: TrainEvent) => void
}

/** `step` counts updates done. Times are in seconds. */
export type TrainEvent =
  | { type: 'start'; step: number; tokens: number; totalTokens: number; resumedFrom: string | undefined }
  | { type: 'baseline'; baseline: Evaluation }
  | {
      type: 'step'
      step: number
      tokens: number
      totalTokens: number
      stage: number
      blockSize: number
      loss: number
      gradNorm: number
      learningRate: number
      /** What else the objective reports. */
      metrics: Readonly<Record<string, Metric>>
      /** Of training alone, smoothed over about ten steps. */
      tokensPerSecond: number
      /** At the average pace of this process, validation and checkpoints included. */
      secondsLeft: number
    }
  | { type: 'validation'; step: number; tokens: number; blockSize: number | 'ar'; validation: Evaluation }
  | { type: 'checkpoint'; step: number; path: string }
  | { type: 'warning'; message: string }

export interface TrainResult {
  /** `interrupted`: the signal was aborted before the last step. */
  status: 'completed' | 'interrupted'
  step: number
  tokens: number
  /** The newest checkpoint, with `earlyStop` the best. Undefined where the run was interrupted before its first step. */
  checkpoint: string | undefined
  baseline: Evaluation | null
  /** The latest validation, or that of the best checkpoint. */
  validation: Evaluation | null
  /** As of the newest checkpoint. */
  spent: Spent
  /** Checkpoints of lowest negative ELBO, best first; they are on the disk. */
  best: { step: number; nelbo: number; path: string }[]
}

/**
 * Trains until the schedule's tokens are seen, or the signal is aborted.
 *
 * A run that is killed at any point and resumed ends with bitwise the weights of one that was not: a checkpoint holds
 * weights, moments, the data position behind its last step, and every draw is a function of (seed, step).
 *
 * @throws TrainingDiverged where loss or gradients are not finite or explode.
 * @throws UserError where the run folder holds another run, or a setting is out of range.
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const { schedule, validation, signal } = options
  const totalTokens = scheduleTokens(schedule)
  const run = await startRun(options)
  const { progress, onEvent, settings } = run
  const { accumulation, validateEvery, saveEvery, logEvery } = settings
  const isStopped = () => isDone(run) || signal?.aborted === true
  let upcoming: Promise<StepData> | undefined
  try {
    const { step, tokens } = progress
    onEvent({ type: 'start', step, tokens, totalTokens, resumedFrom: lastCheckpoint(run) })
    await measureStart(run)
    const pace: Pace = { tokens, since: performance.now(), tokensPerSecond: undefined }
    while (!isStopped()) {
      const data = await (upcoming ?? nextStepData(options.source, accumulation))
      // The next step's data are read while this step runs; their position is not the one that is saved.
      upcoming = progress.tokens + data.tokens < totalTokens ? nextStepData(options.source, accumulation) : undefined
      upcoming?.catch(() => undefined) // reported when it is awaited
      const line = await takeStep(run, data, pace)
      const saveDue = isDue(run, saveEvery) || isDone(run)
      const validationDue = validation.length > 0 && (saveDue || isDue(run, validateEvery))
      if (validationDue) await validate(run, data.documentIds)
      if (validationDue || isDue(run, logEvery) || isDone(run)) await record(run, line, validationDue)
      if (saveDue || signal?.aborted) await save(run, validationDue)
    }
    // The signal may have come after the last look at it inside the loop.
    if (progress.step > 0 && progress.savedStep !== progress.step) await save(run, false)
  } finally {
    await upcoming?.catch(() => undefined) // read in vain: leave nothing running; the step's own error is the one to tell
    await run.metrics.close()
  }
  return resultOf(run)
}

const isDue = ({ progress }: Run, every: number): boolean => every > 0 && progress.step % every === 0

/** Measures what is known before the first step: the base, and the held-out text. */
async function measureStart(run: Run): Promise<void> {
  const { progress, options, settings, onEvent } = run
  const isFirst = progress.step === 0 && options.validation.length > 0
  if (isFirst && progress.baseline === null && options.baseline !== null) progress.baseline = await evaluate(run, 'ar')
  if (progress.baseline) onEvent({ type: 'baseline', baseline: progress.baseline })
  if (!isFirst) return
  await validate(run, [])
  const { targetBlockSize } = settings
  await record(run, { block_size: targetBlockSize === 'ar' ? 1 : targetBlockSize }, true)
}

/** How fast training goes. */
interface Pace {
  /** Where this process began: tokens, and the time in milliseconds. */
  tokens: number
  since: number
  /** Smoothed over about ten steps. */
  tokensPerSecond: number | undefined
}

/** One update. Returns its line of metrics.jsonl; throws TrainingDiverged where it has diverged. */
async function takeStep(run: Run, data: StepData, pace: Pace): Promise<StepLine> {
  const { options, progress } = run
  const totalTokens = scheduleTokens(options.schedule)
  const { index, stage } = stageAt(options.schedule, progress.tokens)
  const tokensAfter = progress.tokens + data.tokens
  const learningRate = learningRateAt(progress.tokens / totalTokens, tokensAfter / totalTokens, options.learningRate)
  const startedAt = performance.now()
  const result = await options.trainer.step({
    step: progress.step,
    batches: data.batches,
    blockSize: stage.blockSize,
    learningRate,
    embeddingNoise: options.embeddingNoise ? embeddingNoise(progress.step, options.embeddingNoise) : 0,
  })
  const tokensPerSecond = data.tokens / ((performance.now() - startedAt) / 1000)
  progress.step++
  progress.tokens = tokensAfter
  progress.flops += result.flops
  progress.stage = index
  progress.position = data.position
  const { loss, gradNorm, metrics } = result
  const line = { block_size: stage.blockSize, loss, grad_norm: gradNorm, lr: learningRate, ...metrics }
  const reason = observeStep(progress.recent, result, run.settings.divergenceFactor)
  if (reason) {
    await record(run, { ...line, tokens_per_s: tokensPerSecond }, false)
    throw new TrainingDiverged(reason, progress.step, data.documentIds, lastCheckpoint(run))
  }
  pace.tokensPerSecond =
    pace.tokensPerSecond === undefined ? tokensPerSecond : 0.9 * pace.tokensPerSecond + 0.1 * tokensPerSecond
  const average = (progress.tokens - pace.tokens) / ((performance.now() - pace.since) / 1000)
  run.onEvent({
    ...{ type: 'step', step: progress.step, tokens: progress.tokens, totalTokens, stage: index },
    ...{ blockSize: stage.blockSize, loss, gradNorm, learningRate, metrics, tokensPerSecond: pace.tokensPerSecond },
    secondsLeft: Math.max(0, totalTokens - progress.tokens) / average,
  })
  return { ...line, tokens_per_s: tokensPerSecond }
}

async function resultOf(run: Run): Promise<TrainResult> {
  const { progress, options } = run
  const pathOf = (step: number) => checkpointPath(options.runDirectory, step)
  const chosen = run.settings.earlyStop > 0 && isDone(run) ? progress.best[0] : undefined
  const best = chosen && pathOf(chosen.step)
  return {
    status: isDone(run) ? 'completed' : 'interrupted',
    step: progress.step,
    tokens: progress.tokens,
    checkpoint: best ?? lastCheckpoint(run),
    baseline: progress.baseline,
    validation: best ? (await readState(best)).validation : progress.validation,
    spent: run.accounted,
    best: progress.best.map((entry) => ({ ...entry, path: pathOf(entry.step) })),
  }
}

interface StepData {
  batches: Batch[]
  tokens: number
  documentIds: string[]
  /** Where the source stands behind these batches. */
  position: DataPosition
}

async function nextStepData(source: BatchSource, accumulation: number): Promise<StepData> {
  const batches: Batch[] = []
  for (let i = 0; i < accumulation; i++) batches.push(await source.next())
  const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0)
  if (tokens === 0) throw new UserError('The training data gave batches without any token; look at the data files.')
  const documentIds = batches.flatMap((batch) => batch.documentIds)
  return { batches, tokens, documentIds, position: structuredClone(source.position()) }
}
