// The training loop: data, learning rate, block size, validation, checkpoints and resume around a compiled step.
// Knows nothing about models, graphs or how the loss is computed.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Spent } from '../account/account.ts'
import { energyMeter } from '../account/energy.ts'
import { UserError } from '../core/types.ts'
import type { Batch, BatchSource, DataPosition } from '../data/types.ts'
import { type EmbeddingNoise, embeddingNoise } from '../diffusion/mask-token.ts'
import { type Stage, scheduleTokens, stageAt } from '../diffusion/schedule.ts'
import { checkpointPath, pruneCheckpoints, readState, saveTrainingCheckpoint, type TrainerState } from './checkpoint.ts'
import { observeStep } from './divergence.ts'
import { type MetricsRecord, openMetrics } from './metrics.ts'
import { configHash, runConfig, startOrResume } from './resume.ts'
import { checkLearningRate, type LearningRateOptions, learningRateAt } from './schedule.ts'
import type { Evaluation, Metric, Trainer } from './types.ts'

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

/** The loss or the gradients are not finite or have exploded. The last good checkpoint is still there. */
export class TrainingDiverged extends UserError {
  override name = 'TrainingDiverged'
  /** The update that failed, counting from 1, as in metrics.jsonl. */
  readonly step: number
  /** Documents of the batches of that update. */
  readonly documentIds: readonly string[]
  /** The last good checkpoint. */
  readonly checkpoint: string | undefined

  constructor(reason: string, step: number, documentIds: readonly string[], checkpoint: string | undefined) {
    const more = documentIds.length > 8 ? ` and ${documentIds.length - 8} more` : ''
    super(
      [
        `Training diverged at step ${step}: ${reason}.`,
        ...(documentIds.length > 0 ? [`Documents of the step: ${documentIds.slice(0, 8).join(', ')}${more}.`] : []),
        checkpoint ? `The last good checkpoint is ${checkpoint}.` : 'No checkpoint had been saved yet.',
        `Look at the documents, or start a new run${checkpoint ? ' from that checkpoint' : ''} with a lower lr, a longer`,
        'lr_warmup_ratio or a lower max_grad_norm.',
      ].join(' '),
    )
    this.step = step
    this.documentIds = documentIds
    this.checkpoint = checkpoint
  }
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
  const { trainer, schedule, validation, runDirectory, signal } = options
  const { accumulation = 1, validateEvery = 100, saveEvery = 500, logEvery = 1, keepLast = 2, keepBest = 3 } = options
  const { earlyStop = 0, divergenceFactor = 20, onEvent = () => undefined } = options
  checkOptions(options)
  const targetBlockSize = options.targetBlockSize ?? schedule.at(-1)!.blockSize
  const totalTokens = scheduleTokens(schedule)
  const config = runConfig(options)

  await mkdir(runDirectory, { recursive: true })
  const progress = await startOrResume(options, config)
  const resumedStep = progress.savedStep ?? -1
  const metrics = await openMetrics(join(runDirectory, 'metrics.jsonl'), resumedStep)
  const energy = await energyMeter()
  const startedAt = performance.now()
  const secondsSinceStart = () => (performance.now() - startedAt) / 1000

  async function spent(): Promise<Spent> {
    const { tokens, flops, elapsedBefore, joulesBefore } = progress
    const joules = energy && joulesBefore !== undefined ? joulesBefore + (await energy()) : undefined
    return { tokens, flops, seconds: elapsedBefore + secondsSinceStart(), joules }
  }

  let accounted: Spent = {
    ...{ tokens: progress.tokens, flops: progress.flops },
    ...{ seconds: progress.elapsedBefore, joules: progress.joulesBefore },
  }

  async function record(step: Pick<MetricsRecord, 'block_size'> & Partial<MetricsRecord>, validated: boolean) {
    const { baseline } = progress
    const { tokens, flops, seconds, joules } = await spent()
    await metrics.append({
      step: progress.step,
      tokens,
      stage: progress.stage,
      ...step,
      ...(validated && progress.validation ? validationRecord(progress.validation) : {}),
      ...(validated && baseline ? { ar_nll: baseline.nll, ar_bits_per_byte: baseline.bitsPerByte } : {}),
      rss_bytes: process.memoryUsage.rss(),
      peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
      energy_j: joules,
      flops,
      elapsed_s: seconds,
    })
  }

  const evaluate = (blockSize: number | 'ar'): Promise<Evaluation> =>
    trainer.evaluate(validation, { blockSize, seed: options.seed, samples: options.validationSamples })

  async function validate(documentIds: readonly string[]): Promise<void> {
    const result = await evaluate(targetBlockSize)
    if (!Number.isFinite(result.nll)) {
      throw new TrainingDiverged(`the validation loss is ${result.nll}`, progress.step, documentIds, lastCheckpoint())
    }
    progress.validation = result
    const { step, tokens } = progress
    onEvent({ type: 'validation', step, tokens, blockSize: targetBlockSize, validation: result })
  }

  async function save(validated: boolean): Promise<void> {
    const { step, tokens, stage, position, recent, baseline } = progress
    const current = validated ? progress.validation : null
    if (current) {
      progress.best = rankedBest([...progress.best, { step, nelbo: current.nll }], keepBest)
      progress.stale = progress.best[0]?.step === step ? 0 : progress.stale + 1
    }
    await metrics.flush()
    const used = await spent()
    const state = {
      format: 1 as const,
      step,
      tokens,
      stage,
      data_position: position,
      elapsed_s: used.seconds,
      flops: used.flops,
      energy_j: used.joules,
      validation: current,
      baseline,
      best: progress.best,
      stale: progress.stale,
      recent,
      config,
      config_hash: configHash(config),
      versions: { node: process.version, platform: `${process.platform}-${process.arch}`, ...options.versions },
    }
    const path = await saveTrainingCheckpoint(runDirectory, trainer, state, options.files?.(used))
    progress.savedStep = step
    accounted = used
    await pruneCheckpoints(runDirectory, { step, keepLast, keepSteps: progress.best.map((entry) => entry.step) })
    onEvent({ type: 'checkpoint', step, path })
  }

  const lastCheckpoint = () =>
    progress.savedStep === undefined ? undefined : checkpointPath(runDirectory, progress.savedStep)
  const isStale = () => earlyStop > 0 && progress.stale >= earlyStop
  const isDone = () => progress.tokens >= totalTokens || isStale()
  const isAborted = () => signal?.aborted === true
  const isDue = (every: number) => every > 0 && progress.step % every === 0

  let upcoming: Promise<StepData> | undefined
  let smoothedSpeed: number | undefined
  try {
    const { step, tokens } = progress
    onEvent({ type: 'start', step, tokens, totalTokens, resumedFrom: lastCheckpoint() })
    if (progress.step === 0 && validation.length > 0) {
      if (progress.baseline === null && options.baseline !== null) progress.baseline = await evaluate('ar')
      if (progress.baseline) onEvent({ type: 'baseline', baseline: progress.baseline })
      await validate([])
      await record({ block_size: targetBlockSize === 'ar' ? 1 : targetBlockSize }, true)
    } else if (progress.baseline) {
      onEvent({ type: 'baseline', baseline: progress.baseline })
    }

    const firstStepAt = secondsSinceStart()
    while (!isDone() && !isAborted()) {
      const data = await (upcoming ?? nextStepData(options.source, accumulation))
      const tokensAfter = progress.tokens + data.tokens
      // The next step's data are read while this step runs; their position is not the one that is saved.
      upcoming = tokensAfter < totalTokens ? nextStepData(options.source, accumulation) : undefined
      upcoming?.catch(() => undefined) // reported when it is awaited

      const { index, stage } = stageAt(schedule, progress.tokens)
      const learningRate = learningRateAt(
        progress.tokens / totalTokens,
        tokensAfter / totalTokens,
        options.learningRate,
      )
      const noise = options.embeddingNoise ? embeddingNoise(progress.step, options.embeddingNoise) : 0
      const stepStart = performance.now()
      const result = await trainer.step({
        step: progress.step,
        batches: data.batches,
        blockSize: stage.blockSize,
        learningRate,
        embeddingNoise: noise,
      })
      const tokensPerSecond = data.tokens / ((performance.now() - stepStart) / 1000)
      progress.step++
      progress.tokens = tokensAfter
      progress.flops += result.flops
      progress.stage = index
      progress.position = data.position

      const reason = observeStep(progress.recent, result, divergenceFactor)
      const saveDue = isDue(saveEvery) || isDone()
      const validationDue = validation.length > 0 && (saveDue || isDue(validateEvery))
      const line = {
        block_size: stage.blockSize,
        loss: result.loss,
        grad_norm: result.gradNorm,
        lr: learningRate,
        ...result.metrics,
        tokens_per_s: tokensPerSecond,
      }
      if (reason) {
        await record(line, false)
        throw new TrainingDiverged(reason, progress.step, data.documentIds, lastCheckpoint())
      }
      smoothedSpeed = smoothedSpeed === undefined ? tokensPerSecond : 0.9 * smoothedSpeed + 0.1 * tokensPerSecond
      const pace = (progress.tokens - tokens) / (secondsSinceStart() - firstStepAt)
      onEvent({
        type: 'step',
        step: progress.step,
        tokens: progress.tokens,
        totalTokens,
        stage: index,
        blockSize: stage.blockSize,
        loss: result.loss,
        gradNorm: result.gradNorm,
        learningRate,
        metrics: result.metrics,
        tokensPerSecond: smoothedSpeed,
        secondsLeft: Math.max(0, totalTokens - progress.tokens) / pace,
      })
      if (validationDue) await validate(data.documentIds)
      if (validationDue || isDue(logEvery) || isDone()) await record(line, validationDue)
      if (saveDue || isAborted()) await save(validationDue)
    }
    // The signal may have come after the last look at it inside the loop.
    if (progress.step > 0 && progress.savedStep !== progress.step) await save(false)
  } finally {
    await upcoming?.catch(() => undefined) // read in vain: leave nothing running; the step's own error is the one to tell
    await metrics.close()
  }

  const chosen = earlyStop > 0 && isDone() ? progress.best[0] : undefined
  const best = chosen && checkpointPath(runDirectory, chosen.step)
  return {
    status: isDone() ? 'completed' : 'interrupted',
    step: progress.step,
    tokens: progress.tokens,
    checkpoint: best ?? lastCheckpoint(),
    baseline: progress.baseline,
    validation: best ? (await readState(best)).validation : progress.validation,
    spent: accounted,
    best: progress.best.map((entry) => ({ ...entry, path: checkpointPath(runDirectory, entry.step) })),
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

function validationRecord({ nll, stderr, bitsPerByte, bitsPerByteStderr, metrics }: Evaluation) {
  if (metrics) return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`validation_${name}`, value]))
  return { nelbo: nll, nelbo_stderr: stderr, bits_per_byte: bitsPerByte, bits_per_byte_stderr: bitsPerByteStderr }
}

function rankedBest(entries: TrainerState['best'], count: number): TrainerState['best'] {
  return [...entries].sort((a, b) => a.nelbo - b.nelbo || a.step - b.step).slice(0, count)
}

function bytesOf(batches: readonly Batch[]): number {
  return batches.reduce((sum, batch) => sum + batch.bytes, 0)
}

function checkOptions(options: TrainOptions): void {
  checkLearningRate(options.learningRate)
  const { accumulation = 1, validateEvery = 100, saveEvery = 500, logEvery = 1, keepLast = 2, keepBest = 3 } = options
  const { earlyStop = 0 } = options
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
  if (options.schedule.length === 0) throw new UserError('The schedule of block sizes is empty.')
  if (options.validation.length > 0 && bytesOf(options.validation) === 0) {
    throw new UserError('The validation data hold no text that the model would predict; name other files.')
  }
}
