// Grouped-query attention of new positions against a KV cache and themselves: what a decoding forward computes, in as few
// nodes as ONNX Runtime allows, because at a few rows a forward every node's overhead counts. Inference only.
import { product, type Shape, sameShape, shapeText, sum } from '../shape.ts'
import { apply1, lastDim, type Operation, type Tensor } from '../tensor.ts'

const biasOperation: Operation<{ group: number }> = {
  name: 'cachedAttentionBias',
  infer([own, past], { group }, fail) {
    const [rows, , , , , length] = own.shape
    if (!sameShape(own.shape, [rows, 1, 1, 1, 1, length, length])) fail('the tile bias must be [B, 1, 1, 1, 1, T, T]')
    const width = past.shape[6]
    if (!sameShape(past.shape, [rows, 1, 1, 1, 1, 1, width])) fail('the cache bias must be [B, 1, 1, 1, 1, 1, C]')
    return [{ dtype: 'float32', shape: [rows, 1, product([group, length]), sum(length, width)] }]
  },
  onnx(emit, [own, past], { group }) {
    const queries = emit.op('Shape', [own], { start: 5, end: 6 })
    const perQuery = emit.op('Concat', [emit.ints([1, 1, 1, 1, 1]), queries, emit.ints([1])], { axis: 0 })
    const all = emit.op('Concat', [own, emit.op('Expand', [past, perQuery])], { axis: -1 })
    const perHead = emit.op('Expand', [all, emit.ints([1, 1, 1, 1, group, 1, 1])])
    const width = emit.op('Shape', [all], { start: 6 })
    return [emit.op('Reshape', [perHead, emit.op('Concat', [emit.ints([0, 1, -1]), width], { axis: 0 })])]
  },
}

/**
 * The bias that all layers share: from `treeBias` over the T new positions in one tile [B, 1, 1, 1, 1, T, T] and
 * `lengthBias` over a cache of C positions [B, 1, 1, 1, 1, 1, C] to [B, 1, group * T, T + C], for `group` query heads per
 * key head.
 */
export const cachedAttentionBias = (own: Tensor, past: Tensor, group: number): Tensor =>
  apply1(biasOperation, [own, past], { group })

const perHeadOperation: Operation<{ heads: number }> = {
  name: 'splitHeads',
  infer: ([x], { heads }) => [{ dtype: x.dtype, shape: [x.shape[0], heads, x.shape[1], lastDim(x) / heads] }],
  onnx(emit, [x], { heads }, node) {
    const split = emit.op('Reshape', [x, emit.ints([0, 0, heads, lastDim(node.inputs[0]) / heads])])
    return [emit.op('Transpose', [split], { perm: [0, 2, 1, 3] })]
  },
}

/** [B, T, heads * D] -> [B, heads, T, D], the layout of the cache. */
export const splitHeads = (x: Tensor, heads: number): Tensor => apply1(perHeadOperation, [x], { heads })

const attentionOperation: Operation<null> = {
  name: 'cachedAttention',
  infer([q, k, v, pastKey, pastValue, bias], _, fail) {
    const [rows, kvHeads, length, headDim] = k.shape
    const capacity = pastKey.shape[2]
    if (k.shape.length !== 4 || !sameShape(k.shape, v.shape)) fail('keys and values must both be [B, heads, T, D]')
    if (!sameShape(pastKey.shape, [rows, kvHeads, capacity, headDim]) || !sameShape(pastKey.shape, pastValue.shape))
      fail(`the cache must be two tensors [${rows}, ${kvHeads}, C, ${headDim}]`)
    const group = lastDim(q) / (kvHeads as number) / (headDim as number)
    if (!sameShape(q.shape.slice(0, 2), [rows, length]) || !Number.isInteger(group))
      fail(`the queries must be [${rows}, ${length}, a multiple of ${kvHeads} * ${headDim}]`)
    const expected: Shape = [rows, 1, product([group, length]), sum(length, capacity)]
    if (!sameShape(bias.shape, expected)) fail(`the bias must be ${shapeText(expected)}`)
    return [{ dtype: 'float32', shape: q.shape }]
  },
  onnx(emit, [q, k, v, pastKey, pastValue, bias], _, node) {
    const width = lastDim(node.inputs[0])
    const [kvHeads, headDim] = [Number(node.inputs[1].shape[1]), Number(node.inputs[1].shape[3])]
    const group = width / kvHeads / headDim
    // The query heads of a key head are rows of one matrix: [B, key heads, group * T, D].
    const split = emit.op('Reshape', [q, emit.ints([0, 0, kvHeads, group, headDim])])
    const grouped = emit.op('Transpose', [split], { perm: [0, 2, 3, 1, 4] })
    const queries = emit.op('Reshape', [grouped, emit.ints([0, 0, -1, headDim])])
    const scale = { transB: 1, alpha: { float: 1 / Math.sqrt(headDim) } }
    const own = emit.contrib('FusedMatMul', [queries, k], scale)
    const past = emit.contrib('FusedMatMul', [queries, pastKey], scale)
    const scores = emit.op('Add', [emit.op('Concat', [own, past], { axis: -1 }), bias])
    const sizes = emit.op('Concat', [lengthOf(k), lengthOf(pastKey)], { axis: 0 })
    const [ownP, pastP] = emit.node('Split', [emit.op('Softmax', [scores], { axis: -1 }), sizes], {
      attributes: { axis: -1 },
      outputs: 2,
    })
    const mixed = emit.op('Add', [emit.op('MatMul', [ownP, v]), emit.op('MatMul', [pastP, pastValue])])
    const perHead = emit.op('Reshape', [mixed, emit.ints([0, 0, group, -1, headDim])])
    const perPosition = emit.op('Transpose', [perHead], { perm: [0, 3, 1, 2, 4] })
    return [emit.op('Reshape', [perPosition, emit.ints([0, 0, width])])]

    function lengthOf(x: string): string {
      return emit.op('Shape', [x], { start: 2, end: 3 })
    }
  },
}

/**
 * softmax(q [k; past k]^T / sqrt(D) + bias) [v; past v]: q [B, T, heads * D]; the new k and v [B, key heads, T, D]; the
 * cache [B, key heads, C, D], its keys rotated; bias of `cachedAttentionBias`. Returns [B, T, heads * D].
 */
export const cachedAttention = (
  q: Tensor,
  { key, value }: { key: Tensor; value: Tensor },
  past: { key: Tensor; value: Tensor },
  bias: Tensor,
): Tensor => apply1(attentionOperation, [q, key, value, past.key, past.value, bias], null)
