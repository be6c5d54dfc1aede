// The likelihood of batches under a model, without anything that training needs beside it.
import type { Batch } from '../data/types.ts'
import { maskableTokens } from '../diffusion/objective.ts'
import type { Model } from '../models/types.ts'
import { formatsOf, loadInference } from '../nn/inference.ts'
import type { Executor, Session } from '../runtime/executor.ts'
import type { InferenceParameter } from '../types.ts'
import { objectiveProgram } from './graph.ts'
import { arMicroBatch, type DenoisingOptions, diffusionMicroBatch } from './micro-batch.ts'
import type { MicroBatch } from './stepper.ts'
import type { Trainer } from './types.ts'

export type EvaluationOptions = Parameters<Trainer['evaluate']>[1]

/** The objective over batches, from the `loss` of each: NELBO at a block size, or the causal NLL. */
export async function meanLoss(
  batches: readonly Batch[],
  { blockSize, seed, samples = 1 }: EvaluationOptions,
  denoising: DenoisingOptions,
  loss: (microBatch: MicroBatch) => Promise<number>,
): Promise<{ nll: number; tokens: number }> {
  const fixed = { seed, noise: { copies: 1 }, weighting: 'elbo', embeddingNoise: 0 } as const
  let total = 0
  let tokens = 0
  for (const [microBatch, batch] of batches.entries())
    for (let step = 0; step < (blockSize === 'ar' ? 1 : samples); step++) {
      const prepared =
        blockSize === 'ar'
          ? arMicroBatch(batch)
          : diffusionMicroBatch(batch, { ...fixed, blockSize, step, microBatch }, denoising)
      // Both objectives are means: over the predicted tokens (AR) or all maskable ones (the ELBO).
      const weight = blockSize === 'ar' ? prepared.lossPositions : maskableTokens(batch, denoising.shift)
      total += weight * (await loss(prepared.microBatch))
      tokens += weight
    }
  return { nll: tokens > 0 ? total / tokens : 0, tokens }
}

/**
 * Evaluates a model as it is run: quantised weights stay quantised, and are part of the session, as in decoding. The
 * weights are copied into the session of a shape of batch, and one such session exists at a time.
 */
export function createEvaluator(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
  options: Omit<DenoisingOptions, 'hiddenSize'>,
): Pick<Trainer, 'evaluate' | 'dispose'> {
  const denoising = { ...options, hiddenSize: model.dimensions.hiddenSize }
  let loaded: { shape: string; session: Session } | undefined

  async function dispose(): Promise<void> {
    await loaded?.session.release()
    loaded = undefined
  }

  async function sessionFor({ objective, rows, length }: MicroBatch): Promise<Session> {
    const shape = JSON.stringify([objective, rows, length])
    if (loaded?.shape !== shape) {
      await dispose()
      const settings = { gradients: false, embeddingNoise: false, formats: formatsOf(weights) }
      const program = objectiveProgram(model, objective, { rows, length }, settings)
      loaded = { shape, session: await loadInference(executor, program, model.parameters, weights) }
    }
    return loaded.session
  }

  return {
    evaluate: (batches, options) =>
      meanLoss(batches, options, denoising, async (microBatch) => {
        const session = await sessionFor(microBatch)
        const { loss } = await session.run(microBatch.feeds, { loss: null })
        return Number(loss.data[0])
      }),
    dispose,
  }
}
