// Attention of new positions against a KV cache that they have been written into: what a decoding forward computes, in as few
// nodes as ONNX Runtime allows, because at a few rows a forward every node's overhead counts. Inference only.
import { z } from 'zod'
import { count, none } from '../attributes.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { defineOperation } from '../registry.ts'
import { type Shape, sameShape, shapeText } from '../shape.ts'
import { apply1, lastDim, type Tensor } from '../tensor.ts'

/** Before every block, and behind every block. */
const FIRST = -(2n ** 62n)
const LAST = 2n ** 62n

const int64 = (emit: Emitter, value: bigint): string =>
  emit.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(value) })

/** 0, 1, ... of an axis. */
function indices(emit: Emitter, x: string, axis: number): string {
  const size = emit.op('Squeeze', [emit.op('Shape', [x], { start: axis, end: axis + 1 })])
  return emit.op('Range', [int64(emit, 0n), size, int64(emit, 1n)])
}

const biasOperation = defineOperation({
  name: 'cachedAttentionBias',
  inputs: ['blocks', 'ends', 'lengths', 'cache'],
  outputs: ['bias'],
  attributes: none,
  infer([blocks, ends, lengths, cache], _, fail) {
    for (const x of [blocks, ends, lengths]) if (x.dtype !== 'int64') fail('blocks, ends and lengths must be int64')
    const [rows, length] = blocks.shape
    if (blocks.shape.length !== 2 || !sameShape(blocks.shape, ends.shape)) fail('blocks and ends must be [B, T]')
    if (!sameShape(lengths.shape, [rows])) fail(`the lengths must be [${rows}]`)
    if (cache.shape.length !== 3 || cache.shape[0] !== rows) fail(`the cache must be [${rows}, C, heads * D]`)
    return [{ dtype: 'float32', shape: [rows, 1, length, cache.shape[1]] }]
  },
  onnx(emit, [blocks, ends, lengths, cache]) {
    const starts = emit.op('Unsqueeze', [lengths, emit.ints([1])])
    // What is filled is before every block and ends never; what is not filled is behind every block.
    const filled = emit.op('Less', [indices(emit, cache, 1), starts])
    const others = emit.op('Where', [filled, int64(emit, FIRST), int64(emit, LAST)])
    const endless = emit.op('Expand', [int64(emit, LAST), emit.op('Shape', [others])])
    const places = emit.op('Add', [indices(emit, blocks, 1), starts])
    const keyBlocks = emit.op('ScatterElements', [others, places, blocks], { axis: 1 })
    const keyEnds = emit.op('ScatterElements', [endless, places, ends], { axis: 1 })
    const queries = emit.op('Unsqueeze', [blocks, emit.ints([1, 3])])
    const keys = (x: string) => emit.op('Unsqueeze', [x, emit.ints([1, 2])])
    const visible = emit.op('And', [
      emit.op('GreaterOrEqual', [queries, keys(keyBlocks)]),
      emit.op('Less', [queries, keys(keyEnds)]),
    ])
    return [emit.op('Where', [visible, emit.float(0), emit.float(Number.NEGATIVE_INFINITY)])]
  },
})

/**
 * The bias that all layers share, [B, 1, T, C]: new position i, which lies at `lengths[row] + i` of a cache [B, C, heads * D],
 * sees what is before, and new position j iff `blocks[j] <= blocks[i] < ends[j]`; blocks and ends [B, T], lengths [B], int64.
 * With endless ends that is block-causal; with the entry and exit times of a walk through a tree, each position sees its
 * ancestors.
 */
export const cachedAttentionBias = (blocks: Tensor, ends: Tensor, lengths: Tensor, cache: Tensor): Tensor =>
  apply1(biasOperation, [blocks, ends, lengths, cache], null)

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
  attributes: z.strictObject({ heads: count, kvHeads: count }),
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
  onnx: (emit, inputs, { heads, kvHeads }) => [
    emit.op('Attention', inputs, { q_num_heads: heads, kv_num_heads: kvHeads }),
  ],
})

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
