// The likelihood of batches under a model, without anything that training needs beside it.

import { type InferenceParameter, type TensorData, UserError } from '../core/types.ts'
import { scoredTokens } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import type { Model } from '../models/types.ts'
import { formatsOf, loadInference } from '../nn/inference.ts'
import { ar } from '../objectives/ar.ts'
import type { BoundSettings, DenoisingSettings } from '../objectives/denoising.ts'
import { objectiveAt, type Variant } from '../objectives/index.ts'
import type { Measurement, MeasureOptions, MicroBatch } from '../objectives/types.ts'
import type { Executor, Session } from '../runtime/executor.ts'
import { objectiveProgram } from './graph.ts'
import type { Evaluation, EvaluationOptions, Trainer } from './types.ts'

/** The draws of a batch: of the bound at a block size, or of the causal likelihood. */
export function likelihoodDraws(
  batch: Batch,
  { blockSize, ...options }: MeasureOptions & Pick<EvaluationOptions, 'blockSize'>,
  settings: BoundSettings,
): Measurement<Variant>[] {
  if (blockSize === 'ar') return ar.measure(batch, options, {})
  const bound: DenoisingSettings = { ...settings, blockSize, weighting: 'elbo', noise: {}, embeddingNoise: 0 }
  return objectiveAt('diffusion', bound, batch.length).measure(batch, options, bound)
}

/** Sums over a tile in one draw. */
interface Sums {
  nll: number
  weight: number
}

/**
 * The mean negative log-likelihood over batches, and its standard error.
 *
 * The mean is a ratio of sums over the draws. Draws 2n and 2n + 1 of a tile are independent and alike, so half of their
 * squared difference, in what they are above the mean, estimates the variance of each without bias; draws of other tiles
 * and other n are independent of them.
 *
 * @param draws The draws of a batch.
 * @param nll Runs one.
 */
export async function meanLikelihood(
  batches: readonly Batch[],
  { seed, samples = 2 }: Pick<EvaluationOptions, 'seed' | 'samples'>,
  draws: (batch: Batch, options: MeasureOptions) => Measurement<Variant>[],
  nll: (microBatch: MicroBatch<Variant>) => Promise<Float32Array>,
): Promise<Evaluation> {
  if (!(Number.isInteger(samples) && samples >= 1))
    throw new UserError(`samples is ${samples}; give a whole number of at least 1.`)
  const measured: (readonly [Sums, Sums])[] = []
  const total: Sums = { nll: 0, weight: 0 }
  let row = 0
  for (const batch of batches) {
    const byTile = new Map<string, [Sums, Sums]>()
    for (const { microBatch, tiles } of draws(batch, { seed, pairs: Math.ceil(samples / 2), row })) {
      const values = await nll(microBatch)
      const weights = (microBatch.feeds.loss_weights as TensorData).data as Float32Array
      for (let i = 0; i < weights.length; i++) {
        if (weights[i] === 0) continue
        const weighted = weights[i] * values[i]
        total.nll += weighted
        total.weight += weights[i]
        const tile = tiles?.[i]
        if (!tile) continue
        const key = `${tile.row} ${tile.start} ${tile.draw >> 1}`
        const pair = byTile.get(key) ?? [
          { nll: 0, weight: 0 },
          { nll: 0, weight: 0 },
        ]
        byTile.set(key, pair)
        pair[tile.draw % 2].nll += weighted
        pair[tile.draw % 2].weight += weights[i]
      }
    }
    measured.push(...byTile.values())
    row += batch.rows
  }
  const mean = total.weight > 0 ? total.nll / total.weight : 0
  const above = (sums: Sums) => sums.nll - mean * sums.weight
  const variance = measured.reduce((sum, [a, b]) => sum + (above(a) - above(b)) ** 2, 0)
  const stderr = total.weight > 0 ? Math.sqrt(variance) / total.weight : 0
  const tokens = batches.reduce((sum, batch) => sum + scoredTokens(batch), 0)
  const bytes = batches.reduce((sum, batch) => sum + batch.bytes, 0)
  const bitsPerNat = tokens / (bytes * Math.LN2)
  return { nll: mean, stderr, bitsPerByte: mean * bitsPerNat, bitsPerByteStderr: stderr * bitsPerNat, tokens, bytes }
}

/**
 * Evaluates a model as it is run: quantised weights stay quantised, and are part of the session, as in decoding. The
 * weights are copied into the session of a shape of batch, and one such session exists at a time.
 */
export function createEvaluator(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
  options: Omit<BoundSettings, 'hiddenSize'>,
): Pick<Trainer, 'evaluate' | 'dispose'> {
  const settings = { ...options, hiddenSize: model.dimensions.hiddenSize }
  let loaded: { shape: string; session: Session } | undefined

  async function dispose(): Promise<void> {
    await loaded?.session.release()
    loaded = undefined
  }

  async function sessionFor({ objective, rows, length }: MicroBatch<Variant>): Promise<Session> {
    const shape = JSON.stringify([objective, rows, length])
    if (loaded?.shape !== shape) {
      await dispose()
      const traced = { gradients: false, formats: formatsOf(weights) }
      const program = objectiveProgram(model, objective, { rows, length }, traced)
      loaded = { shape, session: await loadInference(executor, program, model.parameters, weights) }
    }
    return loaded.session
  }

  return {
    evaluate: (batches, { blockSize, ...drawn }) =>
      meanLikelihood(
        batches,
        drawn,
        (batch, draw) => likelihoodDraws(batch, { ...draw, blockSize }, settings),
        async (microBatch) => {
          const session = await sessionFor(microBatch)
          const { nll } = await session.run(microBatch.feeds, { nll: null })
          return nll.data as Float32Array
        },
      ),
    dispose,
  }
}
