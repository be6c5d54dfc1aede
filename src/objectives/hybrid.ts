// Next-token prediction and diffusion of one model (Nemotron-Labs-Diffusion, NVIDIA, 2026; I-DLM, arXiv 2604.11035): the clean
// row is causal and trained to predict the next token, as an autoregressive model is; strides of masks behind positions of it
// are trained to predict the tokens that follow. The model then checks its own drafts; see decode/speculative.ts.
import { UserError } from '../core/types.ts'
import { isScored } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import { blockCausal } from '../diffusion/attention.ts'
import type { Counters } from '../diffusion/noise.ts'
import { drawStrides } from '../diffusion/strides.ts'
import { draftAttention } from '../graph/ops/attention/draft.ts'
import { strideBias } from '../graph/ops/attention/masks.ts'
import { crossEntropy } from '../graph/ops/cross-entropy.ts'
import { add, differs, mul } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { concat, gatherRows, slice } from '../graph/ops/layout.ts'
import { sum } from '../graph/ops/reduce.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import { type ArVariant, ar } from './ar.ts'
import { CONFIDENCE, type Confidence, withConfidence } from './confidence.ts'
import type { DenoisingSettings } from './denoising.ts'
import { int64, lossFeeds } from './feeds.ts'
import { flatten } from './token-loss.ts'
import type { MicroBatch, Objective, Sizes, TracedLoss } from './types.ts'

export interface HybridVariant {
  kind: 'hybrid'
  /** Most masks of a stride, and groups of that many per row. */
  size: number
  count: number
  /** Weight of the diffusion loss beside the next-token loss. */
  weight: number
  /** Acts on the predictions of masks, as part of the diffusion loss. */
  confidence?: Confidence
}

/** Groups of masks per row: as many as give it `copies` masks for each of its positions. */
const groupCount = ({ copies = 1 }: DenoisingSettings['noise'], size: number, length: number): number =>
  Math.max(1, Math.round((copies * length) / size))

/** Rows are `[clean tokens ; masks, stride by stride]`. */
function prepare(batch: Batch, at: Counters, settings: DenoisingSettings): MicroBatch<HybridVariant> {
  const { rows, length, ids } = batch
  const { blockSize: size, noise, maskTokenId, diffusionWeight: weight = 1, confidence } = settings
  if (maskTokenId === undefined) throw new UserError('a diffusion objective needs a mask token')
  const count = groupCount(noise, size, length)
  const masks = count * size
  const width = length + masks
  const strides = drawStrides(batch, { size, count, ...at })
  const rowed = (clean: Int32Array, noised: (mask: number) => number) => {
    const out = new Int32Array(rows * width)
    for (let row = 0; row < rows; row++) {
      out.set(clean.subarray(row * length, (row + 1) * length), row * width)
      for (let i = 0; i < masks; i++) out[row * width + length + i] = noised(row * masks + i)
    }
    return out
  }
  const index: number[] = []
  const labels: number[] = []
  for (let i = 0; i < ids.length; i++) {
    if (!isScored(batch, i)) continue
    index.push(Math.floor(i / length) * width + (i % length) - 1)
    labels.push(ids[i])
  }
  const predicted = index.length
  for (let mask = 0; mask < rows * masks; mask++) {
    if (strides.weights[mask] === 0) continue
    index.push(Math.floor(mask / masks) * width + length + (mask % masks))
    labels.push(strides.labels[mask])
  }
  const ofPart = (draft: boolean) => Float32Array.from(index, (_, i) => Number(i >= predicted === draft))
  return {
    objective: { kind: 'hybrid', size, count, weight, confidence },
    rows,
    length,
    feeds: {
      input_ids: int64(
        [rows, width],
        rowed(ids, () => maskTokenId),
      ),
      position_ids: int64(
        [rows, width],
        rowed(batch.positions, (mask) => strides.positions[mask]),
      ),
      document_ids: int64([rows, length], batch.documents),
      anchors: int64([rows, count, size], strides.anchors),
      ...lossFeeds(
        { index: Int32Array.from(index), labels: Int32Array.from(labels) },
        { ar_loss: ofPart(false), diffusion_loss: ofPart(true), ...(confidence && { [CONFIDENCE]: ofPart(true) }) },
        rows * width,
      ),
    },
    counts: {
      ar_loss: predicted,
      diffusion_loss: strides.predictions,
      ...(confidence && { [CONFIDENCE]: strides.predictions }),
      loss_positions: index.length,
      tokens: batch.tokens,
    },
  }
}

/**
 * Inputs, with rows of L clean tokens and N = count * size masks: `input_ids`, `position_ids` [rows, L + N]; `document_ids`
 * [rows, L]; `anchors` [rows, count, size]; `loss_index` [M] into the flattened positions, `labels` [M] (all int64);
 * `ar_loss_weights` and `diffusion_loss_weights` [M]. The loss is that of next tokens plus `weight` times that of masks, each
 * a mean over its own predictions. With `confidence` also the inputs of `withConfidence`.
 */
function trace(
  model: Model,
  weights: Weights,
  { size, count, weight, confidence }: HybridVariant,
  { rows, length }: Sizes,
): TracedLoss {
  const { dimensions } = model
  const width = length + count * size
  const positions = input('position_ids', 'int64', [rows, width])
  const documents = input('document_ids', 'int64', [rows, length])
  const index = input('loss_index', 'int64', ['M'])
  const labels = input('labels', 'int64', ['M'])
  const ofText = input('ar_loss_weights', 'float32', ['M'])
  const ofMasks = input('diffusion_loss_weights', 'float32', ['M'])
  const bias = strideBias(input('anchors', 'int64', [rows, count, size]), documents)
  const causal = blockCausal({ documents, positions: slice(positions, 1, 0, length) }, 1, dimensions)
  const { hidden, head, routing } = model.trace(weights, {
    ids: input('input_ids', 'int64', [rows, width]),
    positions,
    positionCount: width,
    attention(q, k, v) {
      const [clean, masks] = [(x: Tensor) => slice(x, 1, 0, length), (x: Tensor) => slice(x, 1, length, width)]
      const context = { key: clean(k), value: clean(v) }
      const drafted = draftAttention(masks(q), { key: masks(k), value: masks(v) }, context, bias, {
        ...dimensions,
        size,
        trainContext: true,
      })
      return concat([causal(clean(q), context.key, context.value), drafted], 1)
    },
    select: (x) => gatherRows(flatten(x), index),
  })
  const lossWeights = add(ofText, mul(ofMasks, weight))
  const { loss, nll, logProbabilities } = crossEntropy(hidden, head, labels, lossWeights)
  const sure =
    confidence && withConfidence(loss, { logProbabilities, labels }, { ...confidence, beta: confidence.beta * weight })
  const part = (weights: Tensor) => sum(mul(nll, weights), [0])
  return {
    loss: sure?.loss ?? loss,
    nll,
    metrics: { ar_loss: part(ofText), diffusion_loss: part(ofMasks), ...sure?.metrics },
    routing,
    counted: {
      positions: concat([differs(documents, -1), differs(slice(positions, 1, length, width), -1)], 1),
      selected: differs(lossWeights, 0),
    },
  }
}

/** What the model writes is what it writes one token at a time, so its likelihood is that of next-token prediction. */
export const hybrid: Objective<DenoisingSettings, HybridVariant, ArVariant> = {
  prepare,
  measure: (batch, options) => ar.measure(batch, options, {}),
  trace,
}
