// Training of an accelerator: low-rank weights that act at mask positions alone, on strides of masks behind the clean rows
// of a frozen autoregressive model. Knows the model, the strides and the loss; it does not know files or when to stop.

import type { Batch } from '../data/types.ts'
import { blockCausal } from '../diffusion/attention.ts'
import { drawStrides, type Strides } from '../diffusion/strides.ts'
import { gradients } from '../graph/gradient.ts'
import { crossEntropy, softCrossEntropy, softmax } from '../graph/ops/cross-entropy.ts'
import { anchorBias, draftAttention } from '../graph/ops/draft-attention.ts'
import { add, mul } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { expandLike, gatherRows, reshape } from '../graph/ops/layout.ts'
import { linear } from '../graph/ops/linear.ts'
import type { Program } from '../graph/program.ts'
import { product } from '../graph/shape.ts'
import { lastDim, scope, type Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/types.ts'
import { loadInference } from '../nn/inference.ts'
import { maskEmbeddingName } from '../nn/lora.ts'
import { createWeights } from '../nn/weights.ts'
import type { Executor } from '../runtime/executor.ts'
import type { InferenceParameter, Parameter, TensorData } from '../types.ts'
import { createUpdater, type MicroBatch, type OptimizerOptions } from './stepper.ts'
import type { Trainer } from './types.ts'

export interface StridedObjective {
  /** Masks of a stride, and strides per row. */
  size: number
  count: number
  /** Share of the loss that is the cross-entropy with the base's own distribution instead of the data's token, from 0 to 1. */
  distill: number
}

export interface StridedTrainerOptions extends OptimizerOptions, StridedObjective {
  /** What the low-rank products are multiplied with: alpha / rank. */
  scale: number
  seed: number
}

const flatten = (x: Tensor): Tensor => reshape(x, [product(x.shape.slice(0, -1)), lastDim(x)])

/**
 * Inputs, with rows of L clean tokens and N = count * size masks each: `input_ids`, `position_ids`, `document_ids`
 * [rows, L]; `anchors` [rows, count], `mask_positions` [rows, N]; `labels` [rows * N] (all int64), `loss_weights` [rows * N];
 * where something is distilled `clean_index` [rows * N] int64; the weights of the model and of the adapter by name.
 * Outputs: `loss` and, with gradients, `grad.<parameter>` of the adapter. The clean rows are traced with the base's weights
 * alone and before the masks, so that the backward pass ends at their keys and values.
 */
export function stridedProgram(
  model: Model,
  adapter: ReadonlyMap<string, readonly number[]>,
  { size, count, distill }: StridedObjective,
  options: { rows: number; length: number; scale: number; gradients: boolean },
): Program {
  const { rows, length, scale } = options
  const { dimensions } = model
  const ids = input('input_ids', 'int64', [rows, length])
  const positions = input('position_ids', 'int64', [rows, length])
  const documents = input('document_ids', 'int64', [rows, length])
  const anchors = input('anchors', 'int64', [rows, count])
  const maskPositions = input('mask_positions', 'int64', [rows, count * size])
  const labels = input('labels', 'int64', [rows * count * size])
  const lossWeights = input('loss_weights', 'float32', [rows * count * size])
  const cleanIndex = input('clean_index', 'int64', [rows * count * size])
  const weights = createWeights(new Map([...model.parameters, ...adapter]))

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
  const bias = anchorBias(anchors, documents)
  const maskEmbedding = weights(maskEmbeddingName(model))
  const { hidden, head } = model.trace(
    weights.gated(() => scale),
    {
      // Their embedding is replaced below, so which tokens these are does not matter.
      ids: maskPositions,
      positions: maskPositions,
      // ONNX Runtime wants a table as long as the input, whatever its positions.
      positionCount: Math.max(length, count * size),
      embeddings: (h) => expandLike(reshape(maskEmbedding, [1, 1, dimensions.hiddenSize]), h),
      attention: (q, key, value, layer) =>
        draftAttention(q, { key, value }, contexts[layer]!, bias, { ...dimensions, size }),
    },
  )
  const drafts = flatten(hidden)
  const parts: Tensor[] = []
  if (distill < 1) parts.push(mul(crossEntropy(drafts, head, labels, lossWeights).loss, 1 - distill))
  if (distill > 0) {
    const base = softmax(linear(clean.hidden, clean.head))
    parts.push(mul(softCrossEntropy(drafts, head, base, lossWeights), distill))
  }
  const loss = parts.reduce(add)
  const outputs: Record<string, Tensor> = { loss }
  if (options.gradients) {
    const names = [...adapter.keys()]
    gradients(
      loss,
      names.map((name) => weights(name)),
    ).forEach((gradient, i) => {
      outputs[`grad.${names[i]}`] = gradient
    })
  }
  return { name: `${model.config.model_type}-strided`, outputs }
}

const int64 = (shape: readonly number[], values: Int32Array): TensorData => ({
  dtype: 'int64',
  shape,
  data: BigInt64Array.from(values, BigInt),
})

/** The inputs of `stridedProgram`. */
export function stridedMicroBatch(batch: Batch, strides: Strides, distill: number): MicroBatch<StridedObjective> {
  const { rows, length } = batch
  const { size, count, anchors, positions, labels, weights, clean } = strides
  const masks = rows * count * size
  return {
    objective: { size, count, distill },
    rows,
    length,
    feeds: {
      input_ids: int64([rows, length], batch.ids),
      position_ids: int64([rows, length], batch.positions),
      document_ids: int64([rows, length], batch.documents),
      anchors: int64([rows, count], anchors),
      mask_positions: int64([rows, count * size], positions),
      ...(distill < 1 ? { labels: int64([masks], labels) } : {}),
      loss_weights: { dtype: 'float32', shape: [masks], data: weights },
      ...(distill > 0 ? { clean_index: int64([masks], clean) } : {}),
    },
  }
}

/**
 * Puts an adapter's weights on the executor; those of the model stay where they are. `evaluate` is the negative
 * log-likelihood of the data per mask, whatever the objective.
 */
export async function createStridedTrainer(
  executor: Executor,
  model: Model,
  base: ReadonlyMap<string, InferenceParameter>,
  initial: ReadonlyMap<string, Parameter>,
  options: StridedTrainerOptions,
): Promise<Trainer> {
  const { size, count, distill, scale, seed } = options
  const shapes = new Map([...initial].map(([name, { shape }]) => [name, shape]))
  const trained = { parameters: shapes, mixtures: [], untrained: new Set<string>() }
  const stepper = await createUpdater<StridedObjective>(
    executor,
    trained,
    initial,
    options,
    ({ objective, rows, length }, withGradients) =>
      loadInference(
        executor,
        stridedProgram(model, shapes, objective, { rows, length, scale, gradients: withGradients }),
        model.parameters,
        base,
        { optimize: false },
      ),
  )
  return {
    ...stepper,

    async step({ step, batches, learningRate }) {
      const drawn = batches.map((batch, microBatch) => ({
        batch,
        strides: drawStrides(batch, { size, count, seed, step, microBatch }),
      }))
      const result = await stepper.update(
        drawn.map(({ batch, strides }) => stridedMicroBatch(batch, strides, distill)),
        learningRate,
      )
      return { ...result, lossPositions: drawn.reduce((sum, { strides }) => sum + strides.predictions, 0) }
    },

    async evaluate(batches, { seed: draw, samples = 1 }) {
      let nll = 0
      let tokens = 0
      for (const [microBatch, batch] of batches.entries())
        for (let step = 0; step < samples; step++) {
          const strides = drawStrides(batch, { size, count, seed: draw, step, microBatch })
          nll += strides.predictions * (await stepper.loss(stridedMicroBatch(batch, strides, 0)))
          tokens += strides.predictions
        }
      return { nll: tokens > 0 ? nll / tokens : 0, tokens }
    },
  }
}
