// The loss that objectives over copies of a row share: cross-entropy at chosen positions.
import type { Attend, RowLayout } from '../diffusion/attention.ts'
import { crossEntropy } from '../graph/ops/cross-entropy.ts'
import { add, differs, mul } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { concat, gatherRows, reshape, slice } from '../graph/ops/layout.ts'
import { sum } from '../graph/ops/reduce.ts'
import { product } from '../graph/shape.ts'
import { lastDim, type Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import type { Sizes, TracedLoss } from './types.ts'

export const flatten = (x: Tensor): Tensor => reshape(x, [product(x.shape.slice(0, -1)), lastDim(x)])

export interface TokenLossOptions extends Sizes {
  /** Copies of each row in the input. */
  copies: number
  /** Who sees whom. */
  attend(layout: RowLayout): Attend
  /** Adds the input `embedding_noise` [copies * rows, length, H] to the embedding output. */
  embeddingNoise?: boolean
  /** Parts of the loss with weights of their own, `<name>_weights` [M]. */
  parts?: readonly string[]
}

/**
 * Inputs: `input_ids`, `position_ids` [copies * rows, length]; `document_ids` [rows, length]; `loss_index` [M] into the
 * flattened positions, `labels` [M] (all int64), `loss_weights` [M].
 */
export function tokenLoss(
  model: Model,
  weights: Weights,
  { rows, length, copies, attend, embeddingNoise = false, parts = [] }: TokenLossOptions,
): TracedLoss {
  const ids = input('input_ids', 'int64', [copies * rows, length])
  const positions = input('position_ids', 'int64', [copies * rows, length])
  const documents = input('document_ids', 'int64', [rows, length])
  const index = input('loss_index', 'int64', ['M'])
  const labels = input('labels', 'int64', ['M'])
  const lossWeights = input('loss_weights', 'float32', ['M'])
  const noise = embeddingNoise
    ? input('embedding_noise', 'float32', [copies * rows, length, model.dimensions.hiddenSize])
    : undefined
  const { hidden, head, routing } = model.trace(weights, {
    ids,
    positions,
    positionCount: length,
    attention: attend({ documents, positions: slice(positions, 0, 0, rows) }),
    embeddings: noise && ((h) => add(h, noise)),
    select: (x) => gatherRows(flatten(x), index),
  })
  const { loss, nll } = crossEntropy(hidden, head, labels, lossWeights)
  const metrics: Record<string, Tensor> = {}
  for (const name of parts) metrics[name] = sum(mul(nll, input(`${name}_weights`, 'float32', ['M'])), [0])
  const inDocument = differs(documents, -1)
  const counted = {
    positions: concat(new Array<Tensor>(copies).fill(inDocument), 0),
    selected: differs(lossWeights, 0),
  }
  return { loss, nll, metrics, routing, counted }
}
