// The training step of the loop: prepares the batches and drives the stepper.
// It knows the model and the objectives; it does not know files, schedules or when to stop.
import type { Batch } from '../data/types.ts'
import type { Counters } from '../diffusion/noise.ts'
import type { Model } from '../models/types.ts'
import { ar } from '../objectives/ar.ts'
import type { DenoisingSettings } from '../objectives/denoising.ts'
import { diffusionAt, type Variant } from '../objectives/index.ts'
import type { MicroBatch } from '../objectives/types.ts'
import type { Executor } from '../runtime/executor.ts'
import type { InitialParameter } from '../types.ts'
import { likelihoodDraws, meanLikelihood } from './evaluator.ts'
import { createStepper, isMatrix, type OptimizerOptions, type Stepper } from './stepper.ts'
import type { StepInput, StepResult, Trainer } from './types.ts'

export interface TrainerOptions
  extends OptimizerOptions,
    Omit<DenoisingSettings, 'hiddenSize' | 'blockSize' | 'embeddingNoise'> {
  /** 'diffusion' (BDLM, MDLM where the block is the whole row) or 'ar'. */
  objective: 'diffusion' | 'ar'
  seed: number
}

/** Puts the model's weights on the executor and returns the step that trains them. Weight decay acts on matrices alone. */
export async function createTrainer(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, InitialParameter>,
  options: TrainerOptions,
): Promise<Trainer> {
  const stepper = await createStepper(executor, model, initial, { decays: (name) => isMatrix(model, name), ...options })
  const { hiddenSize } = model.dimensions
  return {
    ...stepper,
    step: (input) =>
      update(stepper, input, options.seed, (batch, at) => {
        if (options.objective === 'ar') return ar.prepare(batch, at, {})
        const { blockSize, embeddingNoise } = input
        return diffusionAt(blockSize, batch.length).prepare(batch, at, {
          ...options,
          hiddenSize,
          blockSize,
          embeddingNoise,
        })
      }),
    evaluate: (batches, { blockSize, ...drawn }) =>
      meanLikelihood(
        batches,
        drawn,
        (batch, draw) => likelihoodDraws(batch, { ...draw, blockSize }, { ...options, hiddenSize }),
        stepper.nll,
      ),
  }
}

/** One update: prepares the batches of the step, which count their rows together. */
export async function update(
  stepper: Stepper,
  { step, batches, learningRate }: StepInput,
  seed: number,
  prepare: (batch: Batch, at: Counters) => MicroBatch<Variant>,
): Promise<StepResult> {
  let row = 0
  const prepared: MicroBatch<Variant>[] = []
  for (const batch of batches) {
    prepared.push(prepare(batch, { seed, step, row }))
    row += batch.rows
  }
  return stepper.update(prepared, learningRate)
}
