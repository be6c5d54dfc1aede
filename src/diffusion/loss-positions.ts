// From noise to loss: which positions carry loss, with which label and weight. Knows nothing about graphs or models.

import { UserError } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import type { Noise } from './noise.ts'

/**
 * `elbo`: each masked token weighs 1/t, over all supervised tokens; the loss estimates the negative ELBO per token.
 * `mean`: the mean over masked tokens (what dFactory's fine-tuning does).
 */
export type Weighting = 'elbo' | 'mean'

/** The M positions that carry loss, in ascending order: loss = sum_i weights[i] * nll[i] / count. */
export interface LossPositions {
  /** Flat index of the hidden state that predicts, into [copies, rows, length] (with a clean copy behind for `shift`). */
  index: Int32Array
  /** The clean token at the masked position. */
  labels: Int32Array
  weights: Float32Array
  /** Flat index of the token itself, into [copies, rows, length]. */
  tokens: Int32Array
}

/** Where the prediction of a token is read. */
export interface PredictionOptions {
  /**
   * false (default): the state at i predicts token i. true: the state at i - 1 does, as in the autoregressive model that
   * the weights come from; for the first token of a block that is the clean token before the block, which every earlier
   * block already is in decoding. In a group (`drawGroups`) it is the noised one. The first token of
   * a document then has nothing that predicts it and carries no loss.
   */
  shift?: boolean
  /** Block size, for `shift`. */
  blockSize?: number
  /** Whether a clean copy follows the noised ones (BDLM), for `shift`. */
  cleanCopy?: boolean
}

/** 1 for the tokens that carry loss where they are masked: those that may be masked, padding only where asked for. */
export function supervisedTokens(
  { maskable, padding, positions }: Batch,
  { shift = false, supervisePadding = true }: { shift?: boolean; supervisePadding?: boolean },
): Uint8Array {
  return maskable.map((flag, i) => ((padding[i] && !supervisePadding) || (shift && positions[i] === 0) ? 0 : flag))
}

/**
 * Positions, labels and weights of the loss of the masked ones among the `supervised` tokens [rows, length]; of all of them where
 * the noise has edits. Weights are
 * 1/t for `elbo`, to be divided by drawn copies * supervised tokens of the whole step: each copy is one estimate of the negative
 * ELBO in nats per token, and the copies are averaged (LLaDA2.0, equation 1, with w(t) = 1/t). For `mean` they are 1, to be
 * divided by the number of loss positions of the step.
 *
 * Where nothing is masked the arrays are empty: the loss is 0 and carries no gradient.
 */
export function lossPositions(
  noise: Noise,
  batch: Batch,
  supervised: Uint8Array,
  weighting: Weighting,
  { shift = false, blockSize = 1, cleanCopy = false }: PredictionOptions = {},
): LossPositions {
  const size = batch.rows * batch.length
  if (noise.masked.length !== noise.copies * size) {
    throw new UserError(
      `Objective: the noise holds ${noise.masked.length} positions, the batch ${noise.copies} copies of ${size}.`,
    )
  }
  const found: number[] = []
  const { masked, unscored, joined, edits } = noise
  const carries = (i: number) => masked[i] === 1 || (edits !== undefined && noise.t[i]! > 0)
  const isFirst = (i: number) => batch.positions[i % size]! % blockSize === 0
  const fromClean = (i: number) => cleanCopy && isFirst(i) && joined?.[i] !== 1
  for (let i = 0; i < masked.length; i++)
    if (carries(i) && supervised[i % size] === 1 && unscored?.[i] !== 1) found.push(i)
  const tokens = Int32Array.from(found)
  return {
    tokens,
    index: shift ? tokens.map((i) => (fromClean(i) ? noise.copies * size + (i % size) : i) - 1) : tokens,
    labels: tokens.map((i) => batch.ids[i % size]!),
    weights: Float32Array.from(found, (i) => (weighting === 'elbo' ? (noise.elboWeight?.[i] ?? 1 / noise.t[i]!) : 1)),
  }
}

/**
 * The noised copies: `ids` [rows, length] repeated for every copy, with the mask token where it is masked, and with the tokens
 * that stand in place of others.
 */
export function noisedIds(
  ids: Int32Array,
  { masked, edits }: Pick<Noise, 'masked' | 'edits'>,
  maskTokenId: number,
): Int32Array {
  const noised = new Int32Array(masked.length)
  for (let i = 0; i < masked.length; i++) {
    const replaced = edits?.replaced[i] ?? -1
    noised[i] = masked[i] === 1 ? maskTokenId : replaced === -1 ? ids[i % ids.length]! : replaced
  }
  return noised
}
