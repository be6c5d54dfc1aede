// Arrays of a batch as the inputs of a program.

import type { TensorData } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import type { LossPositions } from '../diffusion/loss-positions.ts'
import type { Tiles } from '../diffusion/tiles.ts'

export const int64 = (shape: readonly number[], values: ArrayLike<number>): TensorData => {
  const data = new BigInt64Array(values.length)
  for (let i = 0; i < values.length; i++) data[i] = BigInt(values[i]!)
  return { dtype: 'int64', shape, data }
}

export const float32 = (shape: readonly number[], data: Float32Array): TensorData => ({ dtype: 'float32', shape, data })

const repeat = (values: Int32Array, times: number): Int32Array => {
  const out = new Int32Array(values.length * times)
  for (let i = 0; i < times; i++) out.set(values, i * values.length)
  return out
}

/** `input_ids`, `position_ids` [copies * rows, length] and `document_ids` [rows, length]. */
export function rowFeeds({ rows, length, positions, documents }: Batch, ids: Int32Array) {
  const copies = ids.length / (rows * length)
  return {
    input_ids: int64([copies * rows, length], ids),
    position_ids: int64([copies * rows, length], repeat(positions, copies)),
    document_ids: int64([rows, length], documents),
  }
}

/** What stands in tiles of [copies, rows, length], `width` values for each position: [P, B, width]. */
export function inTiles<T extends Int32Array | Float32Array>({ starts, blockSize }: Tiles, values: T, width = 1): T {
  const size = blockSize * width
  const out = values.slice(0, starts.length * size) as T
  for (const [tile, start] of starts.entries())
    out.set(values.subarray(start * width, (start + blockSize) * width), tile * size)
  return out
}

/** The inputs of a list of tiles, given the ids of all copies. */
export function tileFeeds(
  { rows, length, positions }: Batch,
  tiles: Tiles,
  ids: Int32Array,
): Record<string, TensorData> {
  const { starts, blockSize, attention } = tiles
  const { groups, places, order, placeOf, contextLength, context, contextOf, ranges, columns, columnOf } = attention
  const { spans, before } = attention
  const shape = [starts.length, blockSize]
  const copies = ids.length / (rows * length)
  return {
    input_ids: int64(shape, inTiles(tiles, ids)),
    position_ids: int64(shape, inTiles(tiles, repeat(positions, copies))),
    tile_order: int64([groups, rows, places], order),
    tile_places: int64([starts.length], placeOf),
    context_tiles: int64([rows, contextLength], context),
    context_places: int64([starts.length], contextOf),
    context_ranges: int64([groups, 2], ranges),
    tile_columns: int64([groups, rows, places], columnOf),
    context_limits: int64([groups, rows, columns, spans, 2], before),
  }
}

/**
 * Loss positions as inputs, padded with weight 0 to a multiple of a sixteenth of `capacity`, so that runs share a few shapes
 * and their memory plans. `weights` are feeds by the names of the metrics that they belong to.
 */
export function lossFeeds(
  { index, labels }: Pick<LossPositions, 'index' | 'labels'>,
  weights: Readonly<Record<string, Float32Array>>,
  capacity: number,
): Record<string, TensorData> {
  const multiple = Math.max(16, Math.ceil(capacity / 16))
  const size = Math.max(multiple, Math.ceil(index.length / multiple) * multiple)
  const padded = <T extends Int32Array | Float32Array>(out: T, values: ArrayLike<number>): T => {
    out.set(values)
    return out
  }
  const feeds: Record<string, TensorData> = {
    loss_index: int64([size], padded(new Int32Array(size), index)),
    labels: int64([size], padded(new Int32Array(size), labels)),
  }
  for (const [name, values] of Object.entries(weights))
    feeds[`${name}_weights`] = float32([size], padded(new Float32Array(size), values))
  return feeds
}

/**
 * Which tokens of the loss the model fills in itself: `own_index` [N], the states that predict them, and `token_sources` [P, B],
 * where each token comes from: a place in the flattened [P, B], or behind that one of the N predictions. N is padded to a multiple
 * of 64.
 */
export function ownFeeds(
  shape: readonly number[],
  { index, tokens }: Pick<LossPositions, 'index' | 'tokens'>,
  places: Int32Array,
  own: Uint8Array,
): Record<string, TensorData> {
  const size = shape.reduce((a, b) => a * b, 1)
  const sources = Int32Array.from({ length: size }, (_, place) => place)
  const states: number[] = []
  for (const [i, token] of tokens.entries())
    if (own[token] === 1) sources[places[i]!] = size + states.push(index[i]!) - 1
  const padded = new Int32Array(Math.max(1, Math.ceil(states.length / 64)) * 64)
  padded.set(states)
  return { own_index: int64([padded.length], padded), token_sources: int64(shape, sources) }
}
