// The training step of the loop: prepares the batches and drives the stepper.
// It knows the model and the noise; it does not know files, schedules or when to stop.
import type { NoiseOptions } from '../diffusion/noise.ts'
import type { Weighting } from '../diffusion/objective.ts'
import type { Model } from '../models/types.ts'
import type { Executor } from '../runtime/executor.ts'
import type { InitialParameter } from '../types.ts'
import { meanLoss } from './evaluator.ts'
import { arMicroBatch, diffusionMicroBatch } from './micro-batch.ts'
import { createStepper, type OptimizerOptions } from './stepper.ts'
import type { Trainer } from './types.ts'

export interface TrainerOptions extends OptimizerOptions {
  /** 'diffusion' (BDLM, MDLM where the block is the whole row) or 'ar'. */
  objective: 'diffusion' | 'ar'
  /** Id of the mask token; not needed for 'ar'. */
  maskTokenId?: number
  weighting: Weighting
  noise: NoiseOptions
  /** The state at i - 1 predicts token i; see `PredictionOptions`. Default false. */
  shift?: boolean
  /** Documents are padded to multiples of this; block sizes that divide it never cross a tile. */
  finalBlockSize: number
  seed: number
}

/** Puts the model's weights on the executor and returns the step that trains them. */
export async function createTrainer(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, InitialParameter>,
  options: TrainerOptions,
): Promise<Trainer> {
  const stepper = await createStepper(executor, model, initial, options)
  const denoising = { ...options, hiddenSize: model.dimensions.hiddenSize }

  return {
    ...stepper,

    async step({ step, batches, blockSize, learningRate, embeddingNoise }) {
      const prepared = batches.map((batch, microBatch) =>
        options.objective === 'ar'
          ? arMicroBatch(batch)
          : diffusionMicroBatch(batch, { ...options, blockSize, step, microBatch, embeddingNoise }, denoising),
      )
      const result = await stepper.update(
        prepared.map(({ microBatch }) => microBatch),
        learningRate,
      )
      return { ...result, lossPositions: prepared.reduce((sum, { lossPositions }) => sum + lossPositions, 0) }
    },

    evaluate: (batches, options) => meanLoss(batches, options, denoising, stepper.loss),
  }
}
