// Attention of new positions against a KV cache that they have been written into: what a decoding forward computes, in as few
// nodes as ONNX Runtime allows, because at a few rows a forward every node's overhead counts. Inference only.
import * as z from 'zod'
import { none } from '../../attributes.ts'
import type { Emitter } from '../../onnx/emitter.ts'
import { defineOperation } from '../../registry.ts'
import { type Shape, sameShape, shapeText } from '../../shape.ts'
import { apply1, lastDim, type Tensor } from '../../tensor.ts'
import { indices } from './masks.ts'
import { headAttributes } from './parts.ts'

const placesOperation = defineOperation({
  name: 'cachePlaces',
  inputs: ['lengths', 'ids'],
  outputs: ['places'],
  attributes: none,
  infer([lengths, ids], _, fail) {
    const [rows, length] = ids.shape
    if (lengths.dtype !== 'int64' || !sameShape(lengths.shape, [rows])) fail(`the lengths must be int64 [${rows}]`)
    return [{ dtype: 'int64', shape: [rows, length, 2] }]
  },
  onnx(emit, [lengths, ids]) {
    const sizes = emit.op('Shape', [ids])
    const rows = emit.op('Expand', [emit.op('Unsqueeze', [indices(emit, ids, 0), emit.ints([1])]), sizes])
    const positions = emit.op('Add', [indices(emit, ids, 1), emit.op('Unsqueeze', [lengths, emit.ints([1])])])
    const each = (x: string) => emit.op('Unsqueeze', [x, emit.ints([2])])
    return [emit.op('Concat', [each(rows), each(positions)], { axis: 2 })]
  },
})

/** Row and position in the cache of each new position, [B, T, 2] int64: they follow `lengths` [B]; ids [B, T]. */
export const cachePlaces = (lengths: Tensor, ids: Tensor): Tensor => apply1(placesOperation, [lengths, ids], null)

const storeOperation = defineOperation({
  name: 'storeInCache',
  inputs: ['cache', 'places', 'update'],
  outputs: ['cache'],
  attributes: none,
  infer([cache, places, update], _, fail) {
    const [rows, capacity, width] = cache.shape
    const length = update.shape[1]
    if (cache.shape.length !== 3 || !sameShape(update.shape, [rows, length, width]))
      fail(`the cache must be [${rows}, ${capacity}, ${width}] and the update [${rows}, T, ${width}]`)
    if (places.dtype !== 'int64' || !sameShape(places.shape, [rows, length, 2]))
      fail(`the places must be int64 [${rows}, ${length}, 2]`)
    return [{ dtype: 'float32', shape: cache.shape }]
  },
  // Where input and output are the same memory, nothing but the update is written.
  onnx: (emit, inputs) => [emit.op('ScatterND', inputs)],
})

/** The cache [B, C, W] with the update [B, T, W] written at the places of `cachePlaces`, which are before C. */
export const storeInCache = (cache: Tensor, places: Tensor, update: Tensor): Tensor =>
  apply1(storeOperation, [cache, places, update], null)

const attentionOperation = defineOperation({
  name: 'cachedAttention',
  inputs: ['q', 'keys', 'values', 'bias'],
  outputs: ['y'],
  attributes: z.strictObject(headAttributes),
  infer([q, keys, values, bias], { heads, kvHeads }, fail) {
    const [rows, length, width] = q.shape
    const capacity = keys.shape[1]
    const headDim = Number(width) / heads
    if (q.shape.length !== 3 || !Number.isInteger(headDim)) fail(`the queries must be [B, T, ${heads} * D]`)
    if (!sameShape(keys.shape, [rows, capacity, kvHeads * headDim]) || !sameShape(keys.shape, values.shape))
      fail(`keys and values must both be [${rows}, C, ${kvHeads * headDim}]`)
    const expected: Shape = [rows, 1, length, capacity]
    if (!sameShape(bias.shape, expected)) fail(`the bias must be ${shapeText(expected)}`)
    return [{ dtype: 'float32', shape: q.shape }]
  },
  onnx(emit, [q, keys, values, bias], { heads, kvHeads }, node) {
    const { pad, length } = atLeastTwo(emit, q, node.inputs[0].shape)
    const more = emit.once(`${bias} of two at least`, () => pad(bias, 2))
    const y = emit.op('Attention', [pad(q, 1), keys, values, more], { q_num_heads: heads, kv_num_heads: kvHeads })
    return [emit.op('Slice', [y, emit.ints([0]), length, emit.ints([1])])]
  },
})

/**
 * A single query is multiplied by other means than several, with other last bits. So it gets one of zeros beside it: then it
 * gives the same alone, among others and in a batch. For queries [B, T, W]: what pads an axis of T, and T.
 */
function atLeastTwo(emit: Emitter, queries: string, [, dim]: Shape) {
  const length = emit.once(`${dim} queries`, () => emit.op('Shape', [queries], { start: 1, end: 2 }))
  const pads = emit.once(`pads of ${dim} queries`, () => {
    const missing = emit.op('Max', [emit.op('Sub', [emit.ints([2]), length]), emit.ints([0])])
    return emit.op('Concat', [emit.ints([0]), missing], { axis: 0 })
  })
  return { length, pad: (x: string, axis: number) => emit.op('Pad', [x, pads, '', emit.ints([axis])]) }
}

/**
 * softmax(q keys^T / sqrt(D) + bias) values: q [B, T, heads * D]; keys, rotated, and values [B, C, kvHeads * D]; the bias of
 * `cachedAttentionBias`. Returns [B, T, heads * D].
 */
export const cachedAttention = (
  q: Tensor,
  { keys, values, bias }: { keys: Tensor; values: Tensor; bias: Tensor },
  kvHeads: number,
): Tensor =>
  apply1(attentionOperation, [q, keys, values, bias], {
    heads: (lastDim(q) / lastDim(keys)) * kvHeads,
    kvHeads,
  })
