// Memory of training by PyTorch on one of several processes, by part. The formulas are in docs/cluster.md; what autograd keeps is
// counted from the operations of python/unmask_torch, and compared with what they take in plan.test.ts.

import { tileSizes } from '../diffusion/tiles.ts'
import type { Model } from '../models/types.ts'
import { layerOf } from '../train/graph.ts'

export interface Setup {
  /** Processes, one per GPU. */
  processes: number
  /** Processes among which the experts of a layer are divided. */
  expertParallel: number
  /** Tokens of a row. */
  length: number
  blockSize: number
  /** Noised copies of a row. */
  copies: number
  /** Rows of a micro-batch. */
  rows: number
  dtype: 'float32' | 'bfloat16'
  /** Activations of a layer are computed again in the backward pass. */
  recompute: boolean
}

/** Bytes. */
export interface Memory {
  weights: number
  gradients: number
  moments: number
  /** What the backward pass needs of the forward pass. */
  activations: number
  /** Logits and their gradient. They are gone when the scores of attention have theirs: the larger of the two counts. */
  logits: number
  scores: number
  /** Parameters gathered for a layer and on their way, their gradients, or their copies in bfloat16. */
  buffers: number
  total: number
}

/** Logits of a chunk of the cross-entropy, as python/unmask_torch/operations.py has it. */
const MOST_LOGITS = 2 ** 26

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

const expert = /\.experts\.\d+\./

/** Parameters that a process holds: `torch.chunk` gives the first ones most. */
export function parametersOfProcess(
  { parameters, buffers }: Pick<Model, 'parameters' | 'buffers'>,
  { processes, expertParallel }: Pick<Setup, 'processes' | 'expertParallel'>,
): number {
  const sharing = processes / expertParallel
  let total = 0
  for (const [name, shape] of parameters) {
    if (buffers.has(name)) continue
    const [first = 1, ...rest] = shape
    // An expert's rows are divided, and a process has one expert of `expertParallel`.
    total += expert.test(name)
      ? (Math.ceil(first / sharing) * product(rest)) / expertParallel
      : Math.ceil(first / processes) * product(rest)
  }
  return total
}

/** Numbers that a layer's or the root's parameters have once they are gathered on a process: those of its experts alone. */
function gatheredSizes(model: Model, expertParallel: number): { root: number; layer: number; all: number } {
  const sizes = new Map<string | undefined, number>()
  for (const [name, shape] of model.parameters) {
    const unit = layerOf(name)
    sizes.set(unit, (sizes.get(unit) ?? 0) + product(shape) / (expert.test(name) ? expertParallel : 1))
  }
  const root = sizes.get(undefined) ?? 0
  sizes.delete(undefined)
  return {
    root,
    layer: Math.max(0, ...sizes.values()),
    all: sum(sizes.values()),
  }
}

/** Positions that a row of training computes: noised blocks, and the clean ones that they see. A block of the row has no clean copy. */
export function positionsPerRow({ length, blockSize, copies }: Pick<Setup, 'length' | 'blockSize' | 'copies'>): number {
  return blockSize >= length ? copies * length : copies * length + length - blockSize
}

/** Clean tokens that each group of a row's tiles meets (`tileSizes`). None where a block is the row. */
function contexts({ length, blockSize }: Pick<Setup, 'length' | 'blockSize'>): number[] {
  if (blockSize >= length) return []
  const { groups } = tileSizes(length, blockSize)
  const each = Math.ceil(length / blockSize / groups)
  return Array.from({ length: groups }, (_, group) => (each * (group + 1) - 1) * blockSize)
}

const sum = (values: Iterable<number>): number => [...values].reduce((a, b) => a + b, 0)

/** Keys that a position meets, counted with those that the mask hides. */
export function keysPerPosition(setup: Pick<Setup, 'length' | 'blockSize'>): number {
  const met = contexts(setup)
  return met.length === 0 ? setup.length : sum(met) / met.length + setup.blockSize
}

/** Bytes that autograd keeps per position, and for the last layer's positions that are predicted. */
function keptPerPosition(model: Model, setup: Setup) {
  const { hiddenSize, heads, kvHeads, headDim } = model.dimensions
  const narrow = setup.dtype === 'bfloat16' ? 2 : 4
  const [query, key] = [heads * headDim, kvHeads * headDim]
  // Each group copies the clean keys and values that it meets.
  const met = sum(contexts(setup))
  const copied = met > 0 ? 1 + met / positionsPerRow(setup) : 1
  // A norm keeps its input, the normalised values, and its result as products take it.
  const norms = setup.dtype === 'bfloat16' ? 13 : 12
  const scores = heads * keysPerPosition(setup)
  const hasHeadNorms = [...model.parameters.keys()].some((name) => /query_layernorm|q_norm/.test(name))
  const attention =
    norms * hiddenSize +
    3 * narrow * query +
    // Cosines and sines of queries and keys.
    4 * 2 * headDim +
    2 * narrow * key * copied +
    (hasHeadNorms ? 4 * (2 * query + 3 * key) : 0) +
    // Probabilities in float32, and as products take them.
    scores * (setup.dtype === 'bfloat16' ? 6 : 4)
  const mixture = model.mixtures[0]
  const dense = narrow * 4 * intermediateOf(model)
  const feedForward =
    norms * hiddenSize +
    (mixture
      ? mixture.topK * (narrow * 4 * (mixture.expertSize / (3 * hiddenSize)) + 3 * narrow * hiddenSize + 20) +
        12 * mixture.experts +
        narrow * 4 * sharedOf(model)
      : dense)
  return { attention, feedForward, scores }
}

/** Width of the feed-forward part of a layer that is no mixture. */
function intermediateOf({ parameters }: Model): number {
  for (const [name, [rows]] of parameters) if (/\.mlp\.(gate_proj|ff_proj)\.weight$/.test(name)) return rows!
  return 0
}

function sharedOf({ parameters }: Model): number {
  for (const [name, [rows]] of parameters) if (/\.shared_experts\.gate_proj\.weight$/.test(name)) return rows!
  return 0
}

/** Memory of a process at the most, without PyTorch's own and without fragments. */
export function memoryOf(model: Model, setup: Setup): Memory {
  const { dtype, rows, copies, length, processes } = setup
  const { layers, vocabSize, hiddenSize } = model.dimensions
  const weights = 4 * parametersOfProcess(model, setup)
  const positions = rows * positionsPerRow(setup)
  // On average half of the tokens are masked, so predicted.
  const predicted = (rows * copies * length) / 2
  const { attention, feedForward, scores } = keptPerPosition(model, setup)
  const layer = positions * (attention + feedForward)
  const last = positions * attention + predicted * feedForward
  const entering = 4 * hiddenSize * positions
  // Two gradients of the scores of the group that meets most.
  const met = contexts(setup)
  const gradientsOfScores = 2 * 4 * positions * scores * (met.length > 0 ? met.at(-1)! / sum(met) : 1)
  // Computed again: a layer at a time, beside what enters those before it.
  const activations = setup.recompute
    ? Math.max(layers * entering + last + 12 * hiddenSize * predicted, (layers - 1) * entering + layer)
    : (layers - 1) * layer + last + 12 * hiddenSize * predicted
  const logits = 3 * 4 * Math.min(predicted * vocabSize, MOST_LOGITS)
  const { root, layer: largest, all } = gatheredSizes(model, setup.expertParallel)
  const narrow = dtype === 'bfloat16' ? 2 : 4
  const buffers =
    processes > 1
      ? narrow * (root + 3 * largest) + 4 * largest
      : dtype === 'bfloat16'
        ? 2 * (setup.recompute ? largest : all)
        : 0
  const parts = { weights, gradients: weights, moments: 2 * weights, activations, buffers }
  const passing = { logits, scores: gradientsOfScores }
  return { ...parts, ...passing, total: sum(Object.values(parts)) + Math.max(...Object.values(passing)) }
}
