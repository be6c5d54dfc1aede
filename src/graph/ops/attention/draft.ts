// Attention of the positions that draft: groups of k of them, each position behind one (its anchor) of a row whose keys and
// values are given. A query sees the row up to its anchor and, causally, those of its group with the same anchor. One node
// forward and one node backward.
import * as z from 'zod'
import { count } from '../../attributes.ts'
import type { Emitter } from '../../onnx/emitter.ts'
import { defineOperation } from '../../registry.ts'
import { type Shape, sameShape, shapeText } from '../../shape.ts'
import { apply, type Tensor } from '../../tensor.ts'
import {
  dots,
  type Fail,
  headAttributes,
  likeInputs,
  mix,
  mixByColumns,
  moves,
  never,
  rowSums,
  scaleOf,
  scoreGradient,
  sharedHeads,
  softmaxOfBoth,
} from './parts.ts'

const draftAttributes = z.strictObject({
  ...headAttributes,
  /** Positions of a group, k. */
  size: count,
  /** Gradients flow back into the row's keys and values. */
  trainContext: z.boolean(),
})
type Attributes = z.infer<typeof draftAttributes>

interface Layout extends Attributes {
  rows: number
  groups: number
  /** Positions of the row. */
  length: number
  headDim: number
  /** Query heads per key head. */
  share: number
}

function layoutOf(inputs: readonly Tensor[], attributes: Attributes, fail: Fail): Layout {
  const [q, k, v, contextKey, contextValue] = inputs
  const { kvHeads, size } = attributes
  const [rows, positions] = q.shape
  const length = contextKey.shape[1]
  if (q.shape.length !== 3 || typeof rows !== 'number' || typeof positions !== 'number' || typeof length !== 'number')
    return fail(
      'q must be [rows, groups * k, heads * D] and the context [rows, length, key heads * D], of static sizes',
    )
  const { headDim, share } = sharedHeads(q, attributes, fail)
  const groups = positions / size
  if (!Number.isInteger(groups)) fail(`groups of ${size} do not divide ${positions} positions`)
  if (!sameShape(k.shape, [rows, positions, kvHeads * headDim]) || !sameShape(k.shape, v.shape))
    fail(`k and v must be [${rows}, ${positions}, ${kvHeads * headDim}]`)
  if (
    !sameShape(contextKey.shape, [rows, length, kvHeads * headDim]) ||
    !sameShape(contextKey.shape, contextValue.shape)
  )
    fail(`the context must be two tensors [${rows}, ${length}, ${kvHeads * headDim}]`)
  return { ...attributes, rows, groups, length, headDim, share }
}

/** Layouts of the products. A query tensor is [rows, kvHeads, groups, share * size, D]. */
function arrange(emit: Emitter, { rows, groups, size, kvHeads, share, headDim, length, heads }: Layout) {
  const { reshape, transpose } = moves(emit)
  return {
    query: (x: string) =>
      reshape(transpose(reshape(x, [rows, groups, size, kvHeads, share, headDim]), [0, 3, 1, 4, 2, 5]), [
        rows,
        kvHeads,
        groups,
        share * size,
        headDim,
      ]),
    fromQuery: (x: string) =>
      reshape(transpose(reshape(x, [rows, kvHeads, groups, share, size, headDim]), [0, 2, 4, 1, 3, 5]), [
        rows,
        groups * size,
        heads * headDim,
      ]),
    /** Keys or values of the groups -> [rows, kvHeads, groups, size, D] */
    key: (x: string) => transpose(reshape(x, [rows, groups, size, kvHeads, headDim]), [0, 3, 1, 2, 4]),
    fromKey: (x: string) => reshape(transpose(x, [0, 2, 3, 1, 4]), [rows, groups * size, kvHeads * headDim]),
    /** Keys or values of the row -> [rows, kvHeads, length, D] */
    context: (x: string) => transpose(reshape(x, [rows, length, kvHeads, headDim]), [0, 2, 1, 3]),
    fromContext: (x: string) => reshape(transpose(x, [0, 2, 1, 3]), [rows, length, kvHeads * headDim]),
    /** A query tensor as one matrix per key head: [rows, kvHeads, groups * share * size, width]. */
    flat: (x: string, width: number) => reshape(x, [rows, kvHeads, groups * share * size, width]),
    perGroup: (x: string, width: number) => reshape(x, [rows, kvHeads, groups, share * size, width]),
    perHead: (x: string, width: number) => reshape(x, [rows, kvHeads, groups, share, size, width]),
  }
}

const attentionOperation = defineOperation({
  name: 'draftAttention',
  inputs: ['q', 'k', 'v', 'contextKey', 'contextValue', 'ownBias', 'contextBias'],
  outputs: ['y', 'groupProbabilities', 'contextProbabilities'],
  attributes: draftAttributes,
  // Inputs: q, k, v, the keys and values of the row, the biases of `strideBias`. Outputs: y, the probabilities.
  infer(inputs, attributes, fail) {
    const { rows, groups, length, kvHeads, share, size } = layoutOf(inputs, attributes, fail)
    for (const [i, keys] of [size, length].entries()) {
      const expected: Shape = [rows, 1, groups, 1, size, keys]
      if (!sameShape(inputs[5 + i].shape, expected)) fail(`bias ${i} must be ${shapeText(expected)}`)
    }
    return [
      { dtype: 'float32', shape: inputs[0].shape },
      { dtype: 'float32', shape: [rows, kvHeads, groups, share * size, size] },
      { dtype: 'float32', shape: [rows, kvHeads, groups, share * size, length] },
    ]
  },
  gradient({ inputs: [q, k, v, contextKey, contextValue], outputs, attributes, gradients: [dy] }) {
    const [dq, dk, dv, dContextKey, dContextValue] = apply(
      gradientOperation,
      [q, k, v, contextKey, contextValue, ...outputs, dy as Tensor],
      attributes,
    )
    return [dq, dk, dv, dContextKey, dContextValue, undefined, undefined]
  },
  onnx(emit, [q, k, v, contextKey, contextValue, ownBias, contextBias], attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const { headDim, size, length } = layout
    const at = arrange(emit, layout)
    const scale = scaleOf(headDim)
    const query = at.query(q)
    /** Query heads that share a key head share the bias. */
    const biased = (scores: string, bias: string, keys: number) =>
      at.perGroup(emit.op('Add', [at.perHead(scores, keys), bias]), keys)
    const own = biased(dots(emit, query, at.key(k), scale), ownBias, size)
    const earlier = dots(emit, at.flat(query, headDim), at.context(contextKey), scale)
    const context = biased(earlier, contextBias, length)
    const [ownP, contextP] = softmaxOfBoth(emit, own, context, [size, length])
    const mixed = emit.op('MatMul', [at.flat(contextP, length), at.context(contextValue)])
    const y = emit.op('Add', [emit.op('MatMul', [ownP, at.key(v)]), at.perGroup(mixed, headDim)])
    return [at.fromQuery(y), ownP, contextP]
  },
})

/** Inputs q, k, v, the row's keys and values, the forward's outputs and dy; outputs dq, dk, dv and, if asked for, those of the row. */
const gradientOperation = defineOperation({
  name: 'draftAttentionGradient',
  inputs: ['q', 'k', 'v', 'contextKey', 'contextValue', 'y', 'groupProbabilities', 'contextProbabilities', 'dy'],
  outputs: ['dq', 'dk', 'dv', 'dContextKey?', 'dContextValue?'],
  attributes: draftAttributes,
  infer: ([q, k, v, contextKey, contextValue], { trainContext }) =>
    likeInputs(trainContext ? [q, k, v, contextKey, contextValue] : [q, k, v]),
  onnx(emit, [q, k, v, contextKey, contextValue, y, ownP, contextP, dy], attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const { headDim, length, trainContext } = layout
    const at = arrange(emit, layout)
    const scale = scaleOf(headDim)
    const query = at.query(q)
    const output = at.query(dy)
    const sums = rowSums(emit, output, at.query(y))
    const own = scoreGradient(emit, ownP, dots(emit, output, at.key(v)), sums)
    const dContext = dots(emit, at.flat(output, headDim), at.context(contextValue))
    const context = scoreGradient(emit, contextP, at.perGroup(dContext, length), sums)
    const dqContext = mix(emit, at.flat(context, length), at.context(contextKey), scale)
    const dq = emit.op('Add', [mix(emit, own, at.key(k), scale), at.perGroup(dqContext, headDim)])
    const gradients = [
      at.fromQuery(dq),
      at.fromKey(mixByColumns(emit, own, query, scale)),
      at.fromKey(mixByColumns(emit, ownP, output)),
    ]
    if (!trainContext) return gradients
    return [
      ...gradients,
      at.fromContext(mixByColumns(emit, at.flat(context, length), at.flat(query, headDim), scale)),
      at.fromContext(mixByColumns(emit, at.flat(contextP, length), at.flat(output, headDim))),
    ]
  },
})

/**
 * softmax over the row up to the anchor and over those of the group with the same anchor, up to the query:
 * q [rows, groups * size, heads * D], k and v with key heads; the row's keys and values [rows, length, key heads * D], rotated;
 * `bias` of `strideBias`. Gradients for q, k and v, and with `trainContext` for the row's keys and values.
 */
export const draftAttention = (
  q: Tensor,
  { key, value }: { key: Tensor; value: Tensor },
  context: { key: Tensor; value: Tensor },
  bias: { own: Tensor; context: Tensor },
  { heads, kvHeads, size, trainContext }: Attributes,
): Tensor => {
  const attributes = { heads, kvHeads, size, trainContext }
  return apply(attentionOperation, [q, key, value, context.key, context.value, bias.own, bias.context], attributes)[0]
}
