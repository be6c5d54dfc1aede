// Attention of the positions that draft: groups of k of them, each group behind one position (its anchor) of a row whose
// keys and values are given. A query sees the row up to its anchor and, causally, its own group. One node forward and one
// node backward; nothing flows back into the row.
import { z } from 'zod'
import { count, none } from '../attributes.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { defineOperation } from '../registry.ts'
import { type Shape, sameShape, shapeText } from '../shape.ts'
import { apply, apply1, lastDim, type Tensor } from '../tensor.ts'

const draftAttributes = z.strictObject({
  heads: count,
  kvHeads: count,
  /** Positions of a group, k. */
  size: count,
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

function layoutOf(inputs: readonly Tensor[], attributes: Attributes, fail: (why: string) => never): Layout {
  const [q, k, v, contextKey, contextValue] = inputs
  const { heads, kvHeads, size } = attributes
  const [rows, positions] = q.shape
  const length = contextKey.shape[1]
  if (q.shape.length !== 3 || typeof rows !== 'number' || typeof positions !== 'number' || typeof length !== 'number')
    return fail(
      'q must be [rows, groups * k, heads * D] and the context [rows, length, key heads * D], of static sizes',
    )
  const headDim = lastDim(q) / heads
  const groups = positions / size
  if (!Number.isInteger(headDim) || heads % kvHeads !== 0) fail(`${heads} query heads do not fit the width`)
  if (!Number.isInteger(groups)) fail(`groups of ${size} do not divide ${positions} positions`)
  if (!sameShape(k.shape, [rows, positions, kvHeads * headDim]) || !sameShape(k.shape, v.shape))
    fail(`k and v must be [${rows}, ${positions}, ${kvHeads * headDim}]`)
  if (
    !sameShape(contextKey.shape, [rows, length, kvHeads * headDim]) ||
    !sameShape(contextKey.shape, contextValue.shape)
  )
    fail(`the context must be two tensors [${rows}, ${length}, ${kvHeads * headDim}]`)
  return { ...attributes, rows, groups, length, headDim, share: heads / kvHeads }
}

const never = (why: string): never => {
  throw new Error(why)
}

const fused = (emit: Emitter, a: string, b: string, transA: boolean, transB: boolean, alpha = 1) =>
  emit.contrib('FusedMatMul', [a, b], { transA: transA ? 1 : 0, transB: transB ? 1 : 0, alpha: { float: alpha } })

/** Layouts of the products. A query tensor is [rows, kvHeads, groups, share * size, D]. */
function arrange(emit: Emitter, { rows, groups, size, kvHeads, share, headDim, length, heads }: Layout) {
  const reshape = (x: string, shape: readonly number[]) => emit.op('Reshape', [x, emit.ints(shape)])
  const transpose = (x: string, perm: readonly number[]) => emit.op('Transpose', [x], { perm })
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
    /** A query tensor as one matrix per key head: [rows, kvHeads, groups * share * size, width]. */
    flat: (x: string, width: number) => reshape(x, [rows, kvHeads, groups * share * size, width]),
    perGroup: (x: string, width: number) => reshape(x, [rows, kvHeads, groups, share * size, width]),
  }
}

const attentionOperation = defineOperation({
  name: 'draftAttention',
  inputs: ['q', 'k', 'v', 'contextKey', 'contextValue', 'bias'],
  outputs: ['y', 'groupProbabilities', 'contextProbabilities'],
  attributes: draftAttributes,
  // Inputs: q, k, v, the keys and values of the row, the bias of the row's keys. Outputs: y, the probabilities.
  infer(inputs, attributes, fail) {
    const { rows, groups, length, kvHeads, share, size } = layoutOf(inputs, attributes, fail)
    const expected: Shape = [rows, 1, groups, 1, length]
    if (!sameShape(inputs[5].shape, expected)) fail(`the bias must be ${shapeText(expected)}`)
    return [
      { dtype: 'float32', shape: inputs[0].shape },
      { dtype: 'float32', shape: [rows, kvHeads, groups, share * size, size] },
      { dtype: 'float32', shape: [rows, kvHeads, groups, share * size, length] },
    ]
  },
  gradient({ inputs: [q, k, v, contextKey, contextValue], outputs, attributes, gradients: [dy] }) {
    return [
      ...apply(gradientOperation, [q, k, v, contextKey, contextValue, ...outputs, dy as Tensor], attributes),
      undefined,
      undefined,
      undefined,
    ]
  },
  onnx(emit, [q, k, v, contextKey, contextValue, bias], attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const { headDim, size, share, length } = layout
    const at = arrange(emit, layout)
    const scale = 1 / Math.sqrt(headDim)
    const query = at.query(q)
    const causal = new Float32Array(share * size * size)
    for (let row = 0; row < share * size; row++)
      for (let key = (row % size) + 1; key < size; key++) causal[row * size + key] = Number.NEGATIVE_INFINITY
    const own = emit.op('Add', [
      fused(emit, query, at.key(k), false, true, scale),
      emit.constant({ dtype: 'float32', shape: [share * size, size], data: causal }),
    ])
    const earlier = fused(emit, at.flat(query, headDim), at.context(contextKey), false, true, scale)
    const context = emit.op('Add', [at.perGroup(earlier, length), bias])
    const all = emit.op('Softmax', [emit.op('Concat', [own, context], { axis: -1 })], { axis: -1 })
    const [ownP, contextP] = emit.node('Split', [all, emit.ints([size, length])], {
      attributes: { axis: -1 },
      outputs: 2,
    })
    const mixed = emit.op('MatMul', [at.flat(contextP, length), at.context(contextValue)])
    const y = emit.op('Add', [emit.op('MatMul', [ownP, at.key(v)]), at.perGroup(mixed, headDim)])
    return [at.fromQuery(y), ownP, contextP]
  },
})

/** Inputs q, k, v, the row's keys and values, the forward's outputs and dy; outputs dq, dk, dv. */
const gradientOperation = defineOperation({
  name: 'draftAttentionGradient',
  inputs: ['q', 'k', 'v', 'contextKey', 'contextValue', 'y', 'groupProbabilities', 'contextProbabilities', 'dy'],
  outputs: ['dq', 'dk', 'dv'],
  attributes: draftAttributes,
  infer: ([q, k, v]) => [q, k, v].map(({ dtype, shape }) => ({ dtype, shape })),
  onnx(emit, [q, k, v, contextKey, contextValue, y, ownP, contextP, dy], attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const { headDim, length } = layout
    const at = arrange(emit, layout)
    const scale = 1 / Math.sqrt(headDim)
    const query = at.query(q)
    const output = at.query(dy)
    // dS = P (dP - rowsum(dP P)), and rowsum(dP P) = rowsum(dy y) (Dao et al., 2022, section 3.1).
    const delta = emit.op('ReduceSum', [emit.op('Mul', [output, at.query(y)]), emit.ints([-1])], { keepdims: 1 })
    const scores = (p: string, dP: string) => emit.op('Mul', [p, emit.op('Sub', [dP, delta])])
    const own = scores(ownP, fused(emit, output, at.key(v), false, true))
    const dContext = fused(emit, at.flat(output, headDim), at.context(contextValue), false, true)
    const context = scores(contextP, at.perGroup(dContext, length))
    const dqContext = fused(emit, at.flat(context, length), at.context(contextKey), false, false, scale)
    const dq = emit.op('Add', [fused(emit, own, at.key(k), false, false, scale), at.perGroup(dqContext, headDim)])
    return [
      at.fromQuery(dq),
      at.fromKey(fused(emit, own, query, true, false, scale)),
      at.fromKey(fused(emit, ownP, output, true, false)),
    ]
  },
})

/**
 * softmax over the row up to the anchor and over the group up to the query: q [rows, groups * size, heads * D], k and v
 * with key heads; the row's keys and values [rows, length, key heads * D], rotated; `bias` of `anchorBias`. Gradients for
 * q, k and v.
 */
export const draftAttention = (
  q: Tensor,
  { key, value }: { key: Tensor; value: Tensor },
  context: { key: Tensor; value: Tensor },
  bias: Tensor,
  { heads, kvHeads, size }: Attributes,
): Tensor => apply(attentionOperation, [q, key, value, context.key, context.value, bias], { heads, kvHeads, size })[0]

const biasOperation = defineOperation({
  name: 'anchorBias',
  inputs: ['anchors', 'documents'],
  outputs: ['bias'],
  attributes: none,
  infer([anchors, documents], _, fail) {
    for (const { dtype } of [anchors, documents]) if (dtype !== 'int64') fail('both must be int64')
    const [rows, groups] = anchors.shape
    if (anchors.shape.length !== 2 || documents.shape.length !== 2 || documents.shape[0] !== rows)
      fail('anchors must be [rows, groups] and documents [rows, length]')
    return [{ dtype: 'float32', shape: [rows, 1, groups, 1, documents.shape[1]] }]
  },
  onnx(emit, [anchors, documents], _, node) {
    const length = Number(node.inputs[1].shape[1])
    const index = BigInt64Array.from({ length }, (_, i) => BigInt(i))
    const at = emit.op('Unsqueeze', [anchors, emit.ints([2])])
    const own = emit.op('Unsqueeze', [emit.op('GatherElements', [documents, anchors], { axis: 1 }), emit.ints([2])])
    const visible = emit.op('And', [
      emit.op('Equal', [own, emit.op('Unsqueeze', [documents, emit.ints([1])])]),
      emit.op('GreaterOrEqual', [at, emit.constant({ dtype: 'int64', shape: [1, 1, length], data: index })]),
    ])
    const bias = emit.op('Where', [visible, emit.float(0), emit.float(Number.NEGATIVE_INFINITY)])
    return [emit.op('Unsqueeze', [bias, emit.ints([1, 3])])]
  },
})

/**
 * Shows each group the positions of its anchor's document up to the anchor: anchors [rows, groups] (indices into the row)
 * and documents [rows, length], both int64 -> [rows, 1, groups, 1, length], 0 or -inf.
 */
export const anchorBias = (anchors: Tensor, documents: Tensor): Tensor =>
  apply1(biasOperation, [anchors, documents], null)
