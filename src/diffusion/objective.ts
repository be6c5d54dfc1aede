// From noise to loss: which positions carry loss, with which label and weight. Knows nothing about graphs or models.
import type { Batch } from '../data/types.ts'
import { UserError } from '../types.ts'
import type { Noise } from './noise.ts'

/**
 * `elbo`: each masked token weighs 1/t, over all maskable tokens; the loss estimates the negative ELBO per token.
 * `mean`: the mean over masked tokens (what dFactory's fine-tuning does).
 */
export type Weighting = 'elbo' | 'mean'

/** The M positions that carry loss, in ascending order: loss = sum_i weights[i] * nll[i]. */
export interface LossPositions {
  /** Flat index of the hidden state that predicts, into [copies, rows, length] (with a clean copy behind for `shift`). */
  index: Int32Array
  /** The clean token at the masked position. */
  labels: Int32Array
  weights: Float32Array
}

/** Where the prediction of a token is read. */
export interface PredictionOptions {
  /**
   * false (default): the state at i predicts token i. true: the state at i - 1 does, as in the autoregressive model that
   * the weights come from; for the first token of a block that is the clean token before the block, which every earlier
   * block already is in decoding. The first token of a document then has nothing that predicts it and carries no loss.
   */
  shift?: boolean
  /** Block size, for `shift`. */
  blockSize?: number
  /** Whether a clean copy follows the noised ones (BDLM), for `shift`. */
  cleanCopy?: boolean
}

/**
 * Positions, labels and weights of the loss.
 *
 * - `elbo`: weight (1/t) / (copies * maskable tokens of the batch). Each copy is one estimate of the negative ELBO in
 *   nats per maskable token, and the copies are averaged (LLaDA2.0, equation 1, with w(t) = 1/t).
 * - `mean`: weight 1/M over all copies.
 *
 * Where nothing is masked the arrays are empty: the loss is 0 and carries no gradient.
 */
export function lossPositions(
  noise: Noise,
  batch: Batch,
  weighting: Weighting,
  { shift = false, blockSize = 1, cleanCopy = false }: PredictionOptions = {},
): LossPositions {
  const size = batch.rows * batch.length
  if (noise.masked.length !== noise.copies * size) {
    throw new UserError(
      `Objective: the noise holds ${noise.masked.length} positions, the batch ${noise.copies} copies of ${size}.`,
    )
  }
  const carriesLoss = (i: number) => noise.masked[i] === 1 && !(shift && batch.positions[i % size] === 0)
  let count = 0
  for (let i = 0; i < noise.masked.length; i++) if (carriesLoss(i)) count++
  const index = new Int32Array(count)
  const labels = new Int32Array(count)
  const weights = new Float32Array(count)

  const scale = weighting === 'elbo' ? 1 / (noise.copies * maskableTokens(batch, shift)) : 1 / count
  let next = 0
  for (let i = 0; i < noise.masked.length; i++) {
    if (!carriesLoss(i)) continue
    const fromClean = cleanCopy && batch.positions[i % size]! % blockSize === 0
    index[next] = shift ? (fromClean ? noise.copies * size + (i % size) : i) - 1 : i
    labels[next] = batch.ids[i % size]!
    weights[next] = weighting === 'elbo' ? (noise.elboWeight?.[i] ?? 1 / noise.t[i]!) * scale : scale
    next++
  }
  return { index, labels, weights }
}

/** Tokens of the batch that may be masked: what an ELBO per token is divided by. With `shift`, without first tokens. */
export function maskableTokens(batch: Batch, shift = false): number {
  let count = 0
  for (let i = 0; i < batch.maskable.length; i++) if (batch.maskable[i] && !(shift && batch.positions[i] === 0)) count++
  return count
}

/**
 * The noised copies: `ids` [rows, length] repeated for every copy, with the mask token where `masked`
 * [copies, rows, length] is 1.
 */
export function noisedIds(ids: Int32Array, masked: Uint8Array, maskTokenId: number): Int32Array {
  const noised = new Int32Array(masked.length)
  for (let i = 0; i < masked.length; i++) noised[i] = masked[i] === 1 ? maskTokenId : ids[i % ids.length]!
  return noised
}
