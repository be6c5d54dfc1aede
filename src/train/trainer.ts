// Trainers: a stepper in this process, and the objective that prepares its batches.
// They know the model and the objectives; they do not know schedules, or when to stop.

import { updateFlops } from '../account/flops.ts'
import type { InferenceParameter, InitialParameter, Parameter } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import type { Counters } from '../diffusion/noise.ts'
import type { Model } from '../models/types.ts'
import type { DenoisingSettings } from '../objectives/denoising.ts'
import { objectiveAt, type TrainedObjective, type Variant } from '../objectives/index.ts'
import { type StridedSettings, strided } from '../objectives/strided.ts'
import type { Measurement, MeasureOptions, MicroBatch } from '../objectives/types.ts'
import type { Executor } from '../runtime/executor.ts'
import type { TorchProcess } from '../runtime/torch/process.ts'
import { likelihoodDraws, meanLikelihood } from './evaluator.ts'
import { createStepper, isMatrix, type Stepper, type StepperOptions } from './stepper.ts'
import { createTorchStepper, type TorchType } from './torch-stepper.ts'
import { trainedFiles } from './trained-files.ts'
import type { EvaluationOptions, StepInput, Trainer } from './types.ts'

/** A trainer whose weights lie in this process. */
export type LocalTrainer = Trainer & Pick<Stepper, 'parameters' | 'optimizerState' | 'fill'>

export interface TrainerOptions
  extends Omit<StepperOptions, 'base' | 'loraScale' | 'decays'>,
    Omit<DenoisingSettings, 'hiddenSize' | 'blockSize' | 'embeddingNoise'> {
  objective: TrainedObjective
  seed: number
  /** Low-rank weights that are trained in place of the model's own, and what their products are multiplied with. */
  lora?: { parameters: ReadonlyMap<string, Parameter>; scale: number } | undefined
  /** PyTorch trains in place of the executor. The process belongs to the trainer. */
  torch?: { process: TorchProcess; dtype: TorchType; expertParallel?: number } | undefined
}

/**
 * Puts the model's weights on the executor and returns the step that trains them, or with `lora` the low-rank weights; then the
 * model's may be quantised. Weight decay acts on matrices alone.
 */
export async function createTrainer(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, InferenceParameter>,
  options: TrainerOptions,
): Promise<LocalTrainer> {
  const { hiddenSize } = model.dimensions
  const { lora, torch } = options
  const trained = lora?.parameters ?? trainable(initial)
  const settings: StepperOptions = {
    ...options,
    decays: (name) => isMatrix(model, name),
    ...(lora && { base: initial, loraScale: lora.scale }),
  }
  const stepper = torch
    ? await createTorchStepper(torch.process, model, trained, {
        ...settings,
        dtype: torch.dtype,
        expertParallel: torch.expertParallel,
        threads: executor.threads,
      })
    : await createStepper(executor, model, trained, settings)
  return stepperTrainer(stepper, options.seed, {
    prepare(batch, at, { blockSize, embeddingNoise }) {
      const settings = { ...options, hiddenSize, blockSize, embeddingNoise }
      return objectiveAt(options.objective, settings, batch.length).prepare(batch, at, settings)
    },
    measure: (batch, draw) => likelihoodDraws(batch, draw, { ...options, hiddenSize }),
    flops: updateFlops(model, lora && parameterCount(lora.parameters)),
  })
}

/** Weights that can be trained themselves: those in float32. */
export function trainable(weights: ReadonlyMap<string, InferenceParameter>): Map<string, InitialParameter> {
  const found = new Map<string, InitialParameter>()
  for (const [name, parameter] of weights) {
    if ('data' in parameter) found.set(name, parameter)
    else if ('read' in parameter && parameter.read && parameter.format === undefined)
      found.set(name, parameter as InitialParameter)
    else throw new Error(`${name} is quantised: only low-rank weights can be trained on it`)
  }
  return found
}

export const parameterCount = (parameters: ReadonlyMap<string, { shape: readonly number[] }>): number =>
  [...parameters.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)

export interface StridedTrainerOptions extends Omit<StepperOptions, 'base' | 'decays'>, StridedSettings {
  seed: number
}

/**
 * Training of an accelerator: puts an adapter's weights on the executor, and freezes the model's. `evaluate` is the negative
 * log-likelihood of the data per mask of a stride, whatever the objective: no likelihood of the text, so that it has no bits
 * per byte.
 */
export async function createStridedTrainer(
  executor: Executor,
  model: Model,
  base: ReadonlyMap<string, InferenceParameter>,
  initial: ReadonlyMap<string, Parameter>,
  { size, count, distill, scale, ...options }: StridedTrainerOptions,
): Promise<LocalTrainer> {
  const settings = { size, count, distill, scale }
  const decays = (name: string) => isMatrix(model, name)
  const stepper = await createStepper(executor, model, initial, { ...options, decays, base })
  const local = stepperTrainer(stepper, options.seed, {
    prepare: (batch, at) => strided.prepare(batch, at, settings),
    measure: (batch, draw) => strided.measure(batch, draw, settings),
    flops: updateFlops(model, parameterCount(initial)),
  })
  return {
    ...local,
    async evaluate(batches, options) {
      const perMask = await local.evaluate(batches, options)
      return { ...perMask, bitsPerByte: Number.NaN, bitsPerByteStderr: Number.NaN }
    },
  }
}

/** A trainer that runs what an objective prepares on a stepper. */
export function stepperTrainer(
  stepper: Stepper,
  seed: number,
  objective: {
    prepare(batch: Batch, at: Counters, input: StepInput): MicroBatch<Variant>
    measure(batch: Batch, draw: MeasureOptions & Pick<EvaluationOptions, 'blockSize'>): Measurement<Variant>[]
    /** Estimated operations of an update's micro-batch. */
    flops(microBatch: MicroBatch<Variant>): number
  },
): LocalTrainer {
  return {
    ...stepper,
    ...(stepper.files ?? trainedFiles(stepper)),

    /** The batches of a step count their rows together. */
    async step(input) {
      let row = 0
      const prepared: MicroBatch<Variant>[] = []
      for (const batch of input.batches) {
        prepared.push(objective.prepare(batch, { seed, step: input.step, row }, input))
        row += batch.rows
      }
      const result = await stepper.update(prepared, input.learningRate)
      return { ...result, flops: prepared.reduce((sum, microBatch) => sum + objective.flops(microBatch), 0) }
    },

    evaluate: (batches, { blockSize, ...options }) =>
      meanLikelihood(batches, options, (batch, draw) => objective.measure(batch, { ...draw, blockSize }), stepper.nll),
  }
}
