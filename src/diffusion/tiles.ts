// Which blocks of `[x_t(1) ... x_t(K) ; x_0]` a loss depends on, and how attention meets them. Knows nothing about graphs or
// models.
import type { Batch } from '../data/types.ts'

/** Tokens that the own keys of a query are multiplied in: below this many a product is mostly overhead. */
const SMALLEST_BUNDLE = 16

/** Groups that the tiles of a row are cut into, each with its own part of the context; more where it has many blocks. */
const GROUPS = 4
const MOST_BLOCKS = 32

/** Sizes that a program is traced for, and that its tiles are arranged by. */
export interface TileSizes {
  /** Tiles whose own keys are multiplied together. */
  bundle: number
  groups: number
}

export function tileSizes(length: number, blockSize: number): TileSizes {
  const bundle = Math.ceil(SMALLEST_BUNDLE / blockSize)
  const blocks = length / blockSize
  return { bundle, groups: Math.max(Math.min(GROUPS, Math.ceil(blocks / bundle)), Math.ceil(blocks / MOST_BLOCKS)) }
}

/** Blocks of noised copies and of the clean one, by row and place in it. P of them, at least one. */
export interface Tiles {
  blockSize: number
  /** Index of the first token of each tile in [copies + 1, rows, length], the clean copy last: [P]. */
  starts: Int32Array
  attention: TileAttention
}

/**
 * How the tiles attend: each to itself and to the clean tiles of its document that stand before its block. The tiles of a
 * row are spread over G groups of S places each; the clean tiles of a row are its context, C of them at most.
 */
export interface TileAttention extends TileSizes {
  rows: number
  /** Places of a group, a multiple of `bundle`. */
  places: number
  /** Tile at each place, [G, rows, S]; where there is none, any. */
  order: Int32Array
  /** Place of each tile among all, [P]. */
  placeOf: Int32Array
  contextLength: number
  /** Clean tiles of each row, [rows, C]; where there is none, any. */
  context: Int32Array
  /** Of each tile its place in [rows, C + 1]; for noised tiles the last of row 0, which no tile has. */
  contextOf: Int32Array
  /** First clean tile that a group's queries may see, and the one behind the last: [G, 2]. A range is never empty. */
  ranges: Int32Array
  /** Blocks of a group, at most; one more where a place has no tile, before which nothing is. */
  columns: number
  /** Which of them the tile at each place is of, [G, rows, S]. */
  columnOf: Int32Array
  /** First of the clean tiles of the row that stand before the block, and the one behind the last: [G, rows, columns, 2]. */
  before: Int32Array
}

/**
 * The tiles that the states at `index` depend on: those that hold them, and the clean tiles before these. `index` points into
 * [copies + 1, rows, length]. No block crosses a document.
 */
export function neededTiles(batch: Batch, blockSize: number, copies: number, index: ArrayLike<number>): Tiles {
  const { rows, length, positions } = batch
  const blocks = (rows * length) / blockSize
  const needed = new Uint8Array((copies + 1) * blocks)
  for (let i = 0; i < index.length; i++) needed[Math.floor(index[i]! / blockSize)] = 1
  const clean = copies * blocks
  const isFirst = (block: number) => positions[block * blockSize] === 0
  let later = false
  for (let block = blocks - 1; block >= 0; block--) {
    const own = Array.from({ length: copies + 1 }, (_, copy) => needed[copy * blocks + block]!).includes(1)
    if (later) needed[clean + block] = 1
    later = (later || own) && !isFirst(block)
  }
  const tiles: number[] = []
  for (let block = 0; block < blocks; block++)
    for (let copy = copies; copy >= 0; copy--) if (needed[copy * blocks + block]) tiles.push(copy * blocks + block)
  // Where nothing is masked, something is computed all the same.
  if (tiles.length === 0) tiles.push(clean)
  const starts = Int32Array.from(tiles, (tile) => tile * blockSize)
  const at = tiles.map((tile) => ({ block: tile % blocks, clean: tile >= clean }))
  return { blockSize, starts, attention: arrange(at, isFirst, rows, blocks / rows, tileSizes(length, blockSize)) }
}

/** @param tiles Ordered by block; the blocks of all rows count together. */
function arrange(
  tiles: readonly { block: number; clean: boolean }[],
  isFirst: (block: number) => boolean,
  rows: number,
  blocksPerRow: number,
  { bundle, groups }: TileSizes,
): TileAttention {
  const ofRow: number[][] = Array.from({ length: rows }, () => [])
  const contexts: number[][] = Array.from({ length: rows }, () => [])
  for (const [tile, { block, clean }] of tiles.entries()) {
    const row = Math.floor(block / blocksPerRow)
    ofRow[row]!.push(tile)
    if (clean) contexts[row]!.push(tile)
  }
  const longest = Math.max(...ofRow.map((list) => list.length))
  const places = Math.ceil(Math.ceil(longest / groups) / bundle) * bundle
  const contextLength = Math.max(1, ...contexts.map((list) => list.length))
  const context = new Int32Array(rows * contextLength)
  const contextOf = new Int32Array(tiles.length).fill(contextLength)
  /** Of each block, which clean tiles of its row stand before it in its document. */
  const before = new Map<number, [first: number, end: number]>()
  for (let row = 0; row < rows; row++) {
    let first = 0
    let end = 0
    for (let block = row * blocksPerRow; block < (row + 1) * blocksPerRow; block++) {
      if (isFirst(block)) first = end
      before.set(block, [first, end])
      const tile = contexts[row]![end]
      if (tile === undefined || tiles[tile]!.block !== block) continue
      context[row * contextLength + end] = tile
      contextOf[tile] = row * (contextLength + 1) + end
      end++
    }
  }

  const order = new Int32Array(groups * rows * places)
  const placeOf = new Int32Array(tiles.length)
  const columnOf = new Int32Array(order.length).fill(-1)
  const ranges = new Int32Array(groups * 2)
  const blocksOf: number[][] = []
  for (let group = 0; group < groups; group++) {
    let [low, high] = [contextLength, 0]
    for (let row = 0; row < rows; row++) {
      const list = ofRow[row]!
      const cut = (g: number) => Math.floor((g * list.length) / groups)
      const distinct: number[] = []
      for (const [i, tile] of list.slice(cut(group), cut(group + 1)).entries()) {
        const place = (group * rows + row) * places + i
        order[place] = tile
        placeOf[tile] = place
        const { block } = tiles[tile]!
        if (distinct.at(-1) !== block) distinct.push(block)
        columnOf[place] = distinct.length - 1
        const [first, end] = before.get(block)!
        if (first < end) [low, high] = [Math.min(low, first), Math.max(high, end)]
      }
      blocksOf.push(distinct)
    }
    ranges.set(low < high ? [low, high] : [0, 1], 2 * group)
  }

  const nowhere = Math.max(...blocksOf.map((list) => list.length))
  const columns = nowhere + (columnOf.includes(-1) ? 1 : 0)
  const limits = new Int32Array(blocksOf.length * columns * 2)
  for (const [i, list] of blocksOf.entries())
    for (const [column, block] of list.entries()) limits.set(before.get(block)!, (i * columns + column) * 2)
  return {
    ...{ rows, bundle, groups, places, order, placeOf, contextLength, context, contextOf, ranges, columns },
    columnOf: columnOf.map((column) => (column === -1 ? nowhere : column)),
    before: limits,
  }
}

/** Where positions of [copies + 1, rows, length] that stand in tiles are in [P, blockSize]. */
export function placesIn({ starts, blockSize }: Tiles, index: Int32Array): Int32Array {
  const tileAt = new Map<number, number>()
  for (const [tile, start] of starts.entries()) tileAt.set(start, tile)
  return index.map((i) => tileAt.get(i - (i % blockSize))! * blockSize + (i % blockSize))
}
