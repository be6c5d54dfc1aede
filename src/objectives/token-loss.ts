// The loss that objectives over copies of a row, or parts of them, share: cross-entropy at chosen positions.
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
import { type Confidence, withConfidence } from './confidence.ts'
import type { Sizes, TracedLoss } from './types.ts'

export const flatten = (x: Tensor): Tensor => reshape(x, [product(x.shape.slice(0, -1)), lastDim(x)])

interface PredictionInput {
  /** `input_ids` and `position_ids`, both [batch, length] int64. */
  ids: Tensor
  positions: Tensor
  /** Positions are below this. */
  positionCount: number
  attention: Attend
  /** 1 for positions that hold text or padding of it, 0 for others: [batch, length], for the load of experts. */
  counted: Tensor
  /** Adds the input `embedding_noise` [batch, length, H] to the embedding output. */
  embeddingNoise?: boolean | undefined
  /** Parts of the loss with weights of their own, `<name>_weights` [M]. */
  parts?: readonly string[] | undefined
  confidence?: Confidence | undefined
}

/**
 * Inputs beside those given: `loss_index` [M] into the flattened positions, `labels` [M] (int64), `loss_weights` [M], with
 * `confidence` those of `withConfidence`.
 */
export function predictionLoss(
  model: Model,
  weights: Weights,
  {
    ids,
    positions,
    positionCount,
    attention,
    counted,
    embeddingNoise = false,
    parts = [],
    confidence,
  }: PredictionInput,
): TracedLoss {
  const index = input('loss_index', 'int64', ['M'])
  const labels = input('labels', 'int64', ['M'])
  const lossWeights = input('loss_weights', 'float32', ['M'])
  const noise = embeddingNoise
    ? input('embedding_noise', 'float32', [...ids.shape, model.dimensions.hiddenSize])
    : undefined
  const { hidden, head, routing } = model.trace(weights, {
    ids,
    positions,
    positionCount,
    attention,
    embeddings: noise && ((h) => add(h, noise)),
    select: (x) => gatherRows(flatten(x), index),
  })
  const { loss, nll, logProbabilities } = crossEntropy(hidden, head, labels, lossWeights)
  const metrics: Record<string, Tensor> = {}
  for (const name of parts) metrics[name] = sum(mul(nll, input(`${name}_weights`, 'float32', ['M'])), [0])
  const sure = confidence && withConfidence(loss, { logProbabilities, labels }, confidence)
  return {
    loss: sure?.loss ?? loss,
    nll,
    metrics: { ...metrics, ...sure?.metrics },
    routing,
    counted: { positions: counted, selected: differs(lossWeights, 0) },
  }
}

export interface TokenLossOptions extends Sizes, Pick<PredictionInput, 'embeddingNoise' | 'parts' | 'confidence'> {
  /** Copies of each row in the input. */
  copies: number
  /** Who sees whom. */
  attend(layout: RowLayout): Attend
}

/**
 * Inputs: `input_ids`, `position_ids` [copies * rows, length]; `document_ids` [rows, length] (int64); those of
 * `predictionLoss`.
 */
export function tokenLoss(
  model: Model,
  weights: Weights,
  { rows, length, copies, attend, embeddingNoise, parts, confidence }: TokenLossOptions,
): TracedLoss {
  const positions = input('position_ids', 'int64', [copies * rows, length])
  const documents = input('document_ids', 'int64', [rows, length])
  return predictionLoss(model, weights, {
    ids: input('input_ids', 'int64', [copies * rows, length]),
    positions,
    positionCount: length,
    attention: attend({ documents, positions: slice(positions, 0, 0, rows) }),
    counted: concat(new Array<Tensor>(copies).fill(differs(documents, -1)), 0),
    embeddingNoise,
    parts,
    confidence,
  })
}
