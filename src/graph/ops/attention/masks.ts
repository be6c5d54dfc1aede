// Additive attention biases (0 visible, -inf hidden), computed inside the graph from document ids, positions and lengths:
// of tiles and rows, of groups that draft behind an anchor, and of a cache.
import * as z from 'zod'
import { count, dim, index, none } from '../../attributes.ts'
import type { Emitter } from '../../onnx/emitter.ts'
import { defineOperation } from '../../registry.ts'
import { type Dim, type Shape, sameShape } from '../../shape.ts'
import { apply, apply1, type Tensor } from '../../tensor.ts'

/**
 * Which keys of the same document a query sees, by block index floor(position / block size):
 * `same-block`: equal; `earlier-blocks`: strictly smaller; `block-causal`: smaller or equal; `document`: all.
 */
const visibilities = ['same-block', 'earlier-blocks', 'block-causal', 'document'] as const
export type Visibility = (typeof visibilities)[number]

const maskOperation = defineOperation({
  name: 'maskBias',
  inputs: ['positions', 'documents', 'blockSize?'],
  outputs: ['bias'],
  attributes: z.strictObject({
    visibility: z.enum(visibilities),
    tile: dim,
    /** Keys of the query's own tile (true), or of the whole row (false). */
    ownTile: z.boolean(),
  }),
  infer(inputs, { tile, ownTile }, fail) {
    const [positions, documents, blockSize] = inputs
    if (!sameShape(positions.shape, documents.shape) || positions.shape.length !== 2)
      fail('positions and documents must both be [rows, length]')
    if (blockSize && blockSize.shape.length !== 0) fail('the block size must be a scalar')
    for (const x of inputs) if (x.dtype !== 'int64') fail('the inputs must be int64')
    const [rows, length] = positions.shape
    const tiles = tile === length ? 1 : (length as number) / (tile as number)
    const shape: Shape = [rows, 1, 1, tiles, 1, tile, ownTile ? tile : length]
    return [{ dtype: 'float32', shape }]
  },
  onnx(emit, [positions, documents, blockSize], { visibility, tile, ownTile }, node) {
    const { shape } = node.inputs[0]
    const queries = (x: string) => toQueries(emit, x, shape, tile)
    const keys = (x: string) =>
      ownTile && tile !== shape[1]
        ? emit.op('Reshape', [
            x,
            emit.ints([shape[0], 1, 1, (shape[1] as number) / (tile as number), 1, 1, tile].map(Number)),
          ])
        : emit.op('Unsqueeze', [x, emit.ints([1, 2, 3, 4, 5])])
    let visible = emit.op('Equal', [queries(documents), keys(documents)])
    if (visibility !== 'document') {
      const block = emit.op('Div', [positions, blockSize])
      const compare = { 'same-block': 'Equal', 'earlier-blocks': 'Greater', 'block-causal': 'GreaterOrEqual' }[
        visibility
      ]
      visible = emit.op('And', [visible, emit.op(compare, [queries(block), keys(block)])])
    }
    return [bias(emit, visible)]
  },
})

/** [rows, length] -> [rows, 1, 1, tiles, 1, tile, 1] */
function toQueries(emit: Emitter, x: string, shape: Shape, tile: Dim): string {
  if (tile === shape[1]) return emit.op('Unsqueeze', [x, emit.ints([1, 2, 3, 4, 6])])
  const tiles = (shape[1] as number) / (tile as number)
  return emit.op('Reshape', [x, emit.ints([shape[0], 1, 1, tiles, 1, tile, 1].map(Number))])
}

const bias = (emit: Emitter, visible: string): string =>
  emit.op('Where', [visible, emit.float(0), emit.float(Number.NEGATIVE_INFINITY)])

interface Description {
  /** int64 [rows, length]. */
  positions: Tensor
  documents: Tensor
  /** An int64 scalar; `document` does not look at it. */
  blockSize: Tensor
  tile: Dim
}

const maskBias = (
  visibility: Visibility,
  { positions, documents, blockSize, tile }: Description,
  ownTile: boolean,
): Tensor => {
  const inputs = visibility === 'document' ? [positions, documents] : [positions, documents, blockSize]
  return apply1(maskOperation, inputs, { visibility, tile, ownTile })
}

/** Bias for the keys of the query's own tile: [rows, 1, 1, tiles, 1, tile, tile]. */
export const tileBias = (visibility: Visibility, description: Description): Tensor =>
  maskBias(visibility, description, true)

/** Bias for the keys of the whole row: [rows, 1, 1, tiles, 1, tile, length]. */
export const rowBias = (visibility: Visibility, description: Description): Tensor =>
  maskBias(visibility, description, false)

const columnAttributes = z.strictObject({
  blockSize: count,
  /** First and one past the last position of the group's queries. */
  start: index,
  end: count,
  /** Keys before this position. */
  width: count,
  kvHeads: count,
})

const columnsOperation = defineOperation({
  name: 'blockColumns',
  inputs: ['positions', 'documents'],
  outputs: ['columns'],
  attributes: columnAttributes,
  infer: ([positions], { blockSize, start, end, width, kvHeads }) => [
    { dtype: 'float32', shape: [positions.shape[0], kvHeads, width, (end - start) / blockSize] },
  ],
  onnx(emit, [positions, documents], { blockSize, start, end, width, kvHeads }, node) {
    const rows = node.inputs[0].shape[0] as number
    const axis = emit.ints([1])
    const size = emit.int(blockSize)
    const block = emit.op('Div', [positions, size])
    const keys = (x: string) =>
      emit.op('Unsqueeze', [emit.op('Slice', [x, emit.ints([0]), emit.ints([width]), axis]), emit.ints([1, 3])])
    const queries = (x: string) =>
      emit.op('Unsqueeze', [
        emit.op('Slice', [x, emit.ints([start]), emit.ints([end]), axis, emit.ints([blockSize])]),
        emit.ints([1, 2]),
      ])
    const visible = emit.op('And', [
      emit.op('Equal', [keys(documents), queries(documents)]),
      emit.op('Less', [keys(block), queries(block)]),
    ])
    // Finite, since it is multiplied by the 0 of the other blocks.
    const columns = emit.op('Where', [visible, emit.float(0), emit.float(-1e30)])
    return [emit.op('Expand', [columns, emit.ints([rows, kvHeads, width, (end - start) / blockSize])])]
  },
})

/**
 * For each clean key before `width` and each block of the queries start..end: 0 where the key is of an earlier block of
 * the same document, else -1e30. positions and documents [rows, length] -> [rows, kvHeads, width, blocks].
 * Blocks must not cross documents.
 */
export const blockColumns = (
  positions: Tensor,
  documents: Tensor,
  attributes: z.infer<typeof columnAttributes>,
): Tensor => apply1(columnsOperation, [positions, documents], attributes)

const strideBiasOperation = defineOperation({
  name: 'strideBias',
  inputs: ['anchors', 'documents'],
  outputs: ['own', 'context'],
  attributes: none,
  infer([anchors, documents], _, fail) {
    for (const { dtype } of [anchors, documents]) if (dtype !== 'int64') fail('both must be int64')
    const [rows, groups, size] = anchors.shape
    if (anchors.shape.length !== 3 || documents.shape.length !== 2 || documents.shape[0] !== rows)
      fail('anchors must be [rows, groups, size] and documents [rows, length]')
    const shape = (keys: Dim): Shape => [rows, 1, groups, 1, size, keys]
    return [
      { dtype: 'float32', shape: shape(size) },
      { dtype: 'float32', shape: shape(documents.shape[1]) },
    ]
  },
  onnx(emit, [anchors, documents], _, node) {
    const [rows, groups, size] = node.inputs[0].shape.map(Number)
    const length = Number(node.inputs[1].shape[1])
    const order = (count: number) => BigInt64Array.from({ length: count }, (_, i) => BigInt(i))
    const flat = emit.op('Reshape', [anchors, emit.ints([rows, groups * size])])
    const at = emit.op('Unsqueeze', [flat, emit.ints([2])])
    const own = emit.op('Unsqueeze', [emit.op('GatherElements', [documents, flat], { axis: 1 }), emit.ints([2])])
    const context = emit.op('And', [
      emit.op('Equal', [own, emit.op('Unsqueeze', [documents, emit.ints([1])])]),
      emit.op('GreaterOrEqual', [at, emit.constant({ dtype: 'int64', shape: [1, 1, length], data: order(length) })]),
    ])
    const causal = new Uint8Array(size * size)
    for (let query = 0; query < size; query++) causal.fill(1, query * size, query * size + query + 1)
    const together = emit.op('And', [
      emit.op('Equal', [
        emit.op('Unsqueeze', [anchors, emit.ints([3])]),
        emit.op('Unsqueeze', [anchors, emit.ints([2])]),
      ]),
      emit.constant({ dtype: 'bool', shape: [size, size], data: causal }),
    ])
    const shaped = (visible: string, keys: number) =>
      emit.op('Reshape', [bias(emit, visible), emit.ints([rows, 1, groups, 1, size, keys])])
    return [shaped(together, size), shaped(context, length)]
  },
})

/**
 * What each mask of a stride sees, 0 or -inf: `own`, the masks of its group with its anchor, up to itself
 * [rows, 1, groups, 1, size, size]; `context`, the positions of the anchor's document up to the anchor
 * [rows, 1, groups, 1, size, length]. Inputs: anchors [rows, groups, size] (indices into the row) and documents [rows, length],
 * both int64.
 */
export function strideBias(anchors: Tensor, documents: Tensor): { own: Tensor; context: Tensor } {
  const [own, context] = apply(strideBiasOperation, [anchors, documents], null)
  return { own, context }
}

/** Before every block, and behind every block. */
const FIRST = -(2n ** 62n)
const LAST = 2n ** 62n

/** 0, 1, ... of an axis. */
export function indices(emit: Emitter, x: string, axis: number): string {
  const size = emit.op('Squeeze', [emit.op('Shape', [x], { start: axis, end: axis + 1 })])
  return emit.op('Range', [emit.int(0), size, emit.int(1)])
}

const cachedBiasOperation = defineOperation({
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
    const others = emit.op('Where', [filled, emit.int(FIRST), emit.int(LAST)])
    const endless = emit.op('Expand', [emit.int(LAST), emit.op('Shape', [others])])
    const places = emit.op('Add', [indices(emit, blocks, 1), starts])
    const keyBlocks = emit.op('ScatterElements', [others, places, blocks], { axis: 1 })
    const keyEnds = emit.op('ScatterElements', [endless, places, ends], { axis: 1 })
    const queries = emit.op('Unsqueeze', [blocks, emit.ints([1, 3])])
    const keys = (x: string) => emit.op('Unsqueeze', [x, emit.ints([1, 2])])
    const visible = emit.op('And', [
      emit.op('GreaterOrEqual', [queries, keys(keyBlocks)]),
      emit.op('Less', [queries, keys(keyEnds)]),
    ])
    return [bias(emit, visible)]
  },
})

/**
 * The bias that all layers share, [B, 1, T, C]: new position i, which lies at `lengths[row] + i` of a cache [B, C, heads * D],
 * sees what is before, and new position j iff `blocks[j] <= blocks[i] < ends[j]`; blocks and ends [B, T], lengths [B], int64.
 * With endless ends that is block-causal; with the entry and exit times of a walk through a tree, each position sees its
 * ancestors.
 */
export const cachedAttentionBias = (blocks: Tensor, ends: Tensor, lengths: Tensor, cache: Tensor): Tensor =>
  apply1(cachedBiasOperation, [blocks, ends, lengths, cache], null)
