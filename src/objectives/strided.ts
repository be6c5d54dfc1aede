// What an accelerator is trained on: strides of masks behind the clean rows of a frozen autoregressive model, where low-rank
// weights act at the masks alone.
import type { Batch } from '../data/types.ts'
import { blockCausal } from '../diffusion/attention.ts'
import type { Counters } from '../diffusion/noise.ts'
import { drawStrides, type Strides } from '../diffusion/strides.ts'
import { draftAttention } from '../graph/ops/attention/draft.ts'
import { strideBias } from '../graph/ops/attention/masks.ts'
import { crossEntropy, softCrossEntropy, softmax } from '../graph/ops/cross-entropy.ts'
import { add, differs, mul } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { expandLike, gatherRows, reshape } from '../graph/ops/layout.ts'
import { linear } from '../graph/ops/linear.ts'
import { scope, type Tensor } from '../graph/tensor.ts'
import { maskEmbeddingName } from '../models/lora.ts'
import type { Model } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import { float32, int64, rowFeeds } from './feeds.ts'
import { flatten } from './token-loss.ts'
import type { MicroBatch, Objective, Sizes, Tile, TracedLoss } from './types.ts'

export interface StridedSettings {
  /** Most masks of a stride, and groups of that many per row. */
  size: number
  count: number
  /** Share of the loss that is the cross-entropy with the base's own distribution instead of the data's token, from 0 to 1. */
  distill: number
  /** What the low-rank products are multiplied with: alpha / rank. */
  scale: number
}

export interface StridedVariant extends StridedSettings {
  kind: 'strided'
}

function microBatch(batch: Batch, strides: Strides, settings: StridedSettings): MicroBatch<StridedVariant> {
  const { rows, length } = batch
  const { size, count, distill } = settings
  const { anchors, positions, labels, weights, clean, predictions } = strides
  const masks = rows * count * size
  return {
    objective: { kind: 'strided', ...settings },
    rows,
    length,
    feeds: {
      ...rowFeeds(batch, batch.ids),
      anchors: int64([rows, count, size], anchors),
      mask_positions: int64([rows, count * size], positions),
      ...(distill < 1 && { labels: int64([masks], labels) }),
      loss_weights: float32([masks], weights),
      ...(distill > 0 && { clean_index: int64([masks], clean) }),
    },
    counts: { loss: predictions, loss_positions: predictions, tokens: batch.tokens },
  }
}

const prepare = (batch: Batch, at: Counters, settings: StridedSettings) =>
  microBatch(batch, drawStrides(batch, { ...settings, ...at }), settings)

/**
 * Inputs, with rows of L clean tokens and N = count * size masks each: `input_ids`, `position_ids`, `document_ids`
 * [rows, L]; `anchors` [rows, count, size], `mask_positions` [rows, N]; `labels` [rows * N] (all int64), `loss_weights` [rows * N];
 * where something is distilled `clean_index` [rows * N] int64. The clean rows are traced with the base's weights alone and
 * before the masks, so that the backward pass ends at their keys and values.
 */
function trace(
  model: Model,
  weights: Weights,
  { size, count, distill, scale }: StridedVariant,
  { rows, length }: Sizes,
): TracedLoss {
  const { dimensions } = model
  const ids = input('input_ids', 'int64', [rows, length])
  const positions = input('position_ids', 'int64', [rows, length])
  const documents = input('document_ids', 'int64', [rows, length])
  const anchors = input('anchors', 'int64', [rows, count, size])
  const maskPositions = input('mask_positions', 'int64', [rows, count * size])
  const labels = input('labels', 'int64', [rows * count * size])
  const lossWeights = input('loss_weights', 'float32', [rows * count * size])
  const cleanIndex = input('clean_index', 'int64', [rows * count * size])

  const contexts: { key: Tensor; value: Tensor }[] = []
  const causal = blockCausal({ documents, positions }, 1, dimensions)
  const clean = scope('clean', () =>
    model.trace(weights, {
      ids,
      positions,
      positionCount: length,
      attention(q, key, value, layer) {
        contexts[layer] = { key, value }
        return causal(q, key, value)
      },
      select: (x) => gatherRows(flatten(x), cleanIndex),
    }),
  )
  const bias = strideBias(anchors, documents)
  const maskEmbedding = weights(maskEmbeddingName(model))
  const { hidden, head, routing } = model.trace(
    weights.gated(() => scale),
    {
      // Their embedding is replaced below, so which tokens these are does not matter.
      ids: maskPositions,
      positions: maskPositions,
      // ONNX Runtime wants a table as long as the input, whatever its positions.
      positionCount: Math.max(length, count * size),
      embeddings: (h) => expandLike(reshape(maskEmbedding, [1, 1, dimensions.hiddenSize]), h),
      attention: (q, key, value, layer) =>
        draftAttention(q, { key, value }, contexts[layer]!, bias, { ...dimensions, size, trainContext: false }),
    },
  )
  const drafts = flatten(hidden)
  const { loss: ofData, nll } = crossEntropy(drafts, head, labels, lossWeights)
  const parts: Tensor[] = []
  if (distill < 1) parts.push(mul(ofData, 1 - distill))
  if (distill > 0) {
    const base = softmax(linear(clean.hidden, clean.head))
    parts.push(mul(softCrossEntropy(linear(drafts, head), base, lossWeights), distill))
  }
  const masks = differs(lossWeights, 0)
  return { loss: parts.reduce(add), nll, metrics: {}, routing, counted: { positions: masks, selected: masks } }
}

export const strided: Objective<StridedSettings, StridedVariant> = {
  prepare,
  // The likelihood of the data, whatever is distilled. A row's anchors are drawn together.
  measure: (batch, { seed, pairs, row }, settings) =>
    Array.from({ length: 2 * pairs }, (_, draw) => {
      const drawn = prepare(batch, { seed, step: draw, row }, { ...settings, distill: 0 })
      const perRow = settings.size * settings.count
      const tiles = Array.from({ length: batch.rows * perRow }, (_, mask): Tile => {
        return { row: row + Math.floor(mask / perRow), start: 0, draw }
      })
      return { microBatch: drawn, tiles }
    }),
  trace,
}
