// Additive attention biases (0 visible, -inf hidden), computed inside the graph from document ids, positions and lengths.
import { z } from 'zod'
import { count, dim, index } from '../attributes.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { defineOperation } from '../registry.ts'
import { type Dim, type Shape, sameShape } from '../shape.ts'
import { apply1, type Tensor } from '../tensor.ts'

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
    const size = emit.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(blockSize)) })
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
