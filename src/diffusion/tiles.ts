// Which blocks of `[x_t(1) ... x_t(K) ; x_0]` a loss depends on, and how attention meets them. Knows nothing about graphs or
// models.
import type { Batch } from '../data/types.ts'
import type { Joined } from './groups.ts'

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
 * How the tiles attend: each to itself and to the clean tiles of its document before its block. Where blocks are noised
 * together (`drawGroups`), a noised tile sees the clean tiles before the first block of those, and the noised tiles from there to
 * its own. The tiles of a row are spread over G groups of S places each; the tiles of a row that others see are its context, C
 * of them at most: first the clean ones, then the noised ones.
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
  /** Tiles of each row that others see, [rows, C]; where there is none, any. */
  context: Int32Array
  /** Of each tile its place in [rows, C + 1]; for those that none sees the last of row 0, which no tile has. */
  contextOf: Int32Array
  /** First tile of the context that a group's queries may see, and the one behind the last: [G, 2]. A range is never empty. */
  ranges: Int32Array
  /** Sets of tiles that queries of a group see, at most; one more where a place has no tile, which sees nothing. */
  columns: number
  /** Which of them the tile at each place sees, [G, rows, S]. */
  columnOf: Int32Array
  /** Ranges of the context that make up a set: one of clean tiles, and where blocks are noised together one of noised ones. */
  spans: 1 | 2
  /** First tile of each range, and the one behind the last: [G, rows, columns, spans, 2]. */
  before: Int32Array
}

/**
 * The tiles that the states at `index` depend on: those that hold them, and those that these see. `index` points into
 * [copies + 1, rows, length]. No block crosses a document.
 */
export function neededTiles(
  batch: Batch,
  blockSize: number,
  copies: number,
  index: ArrayLike<number>,
  joined?: Joined,
): Tiles {
  const { rows, length, positions } = batch
  const blocks = (rows * length) / blockSize
  const needed = new Uint8Array((copies + 1) * blocks)
  for (let i = 0; i < index.length; i++) needed[Math.floor(index[i]! / blockSize)] = 1
  const clean = copies * blocks
  const isFirst = (block: number) => positions[block * blockSize] === 0
  const isJoined = (tile: number) => joined?.[tile * blockSize] === 1
  for (let tile = clean - 1; tile > 0; tile--) if (needed[tile] && isJoined(tile)) needed[tile - 1] = 1
  let later = false
  for (let block = blocks - 1; block >= 0; block--) {
    const own = Array.from({ length: copies + 1 }, (_, copy) => copy * blocks + block)
    if (later) needed[clean + block] = 1
    // What a joined tile sees of the clean copy, the first of those noised with it sees too.
    later = (later || own.some((tile) => needed[tile] === 1 && !isJoined(tile))) && !isFirst(block)
  }
  const tiles: number[] = []
  for (let block = 0; block < blocks; block++)
    for (let copy = copies; copy >= 0; copy--) if (needed[copy * blocks + block]) tiles.push(copy * blocks + block)
  // Where nothing is masked, something is computed all the same.
  if (tiles.length === 0) tiles.push(clean)
  const starts = Int32Array.from(tiles, (tile) => tile * blockSize)
  const at = tiles.map((tile): PlacedTile => {
    let first = tile
    while (isJoined(first)) first--
    const isSeen = tile >= clean || (isJoined(tile + 1) && needed[tile + 1] === 1)
    return { block: tile % blocks, before: tile - first, group: tile >= clean ? undefined : first, isSeen }
  })
  const sizes = { ...tileSizes(length, blockSize), spans: joined ? 2 : 1 } as const
  return { blockSize, starts, attention: arrange(at, isFirst, rows, blocks / rows, sizes) }
}

interface PlacedTile {
  /** The blocks of all rows count together. */
  block: number
  /** Which tiles are noised together with it, and how many of them stand before it; undefined for a clean one. */
  group: number | undefined
  before: number
  /** Others see it. */
  isSeen: boolean
}

/** @param tiles Ordered by block. */
function arrange(
  tiles: readonly PlacedTile[],
  isFirst: (block: number) => boolean,
  rows: number,
  blocksPerRow: number,
  { bundle, groups, spans }: TileSizes & Pick<TileAttention, 'spans'>,
): TileAttention {
  const ofRow: number[][] = Array.from({ length: rows }, () => [])
  for (const [tile, { block }] of tiles.entries()) ofRow[Math.floor(block / blocksPerRow)]!.push(tile)
  const longest = Math.max(...ofRow.map((list) => list.length))
  const places = Math.ceil(Math.ceil(longest / groups) / bundle) * bundle
  const contexts = ofRow.map((list) => contextTiles(tiles, list))
  const contextLength = Math.max(1, ...contexts.map((list) => list.length))
  const context = new Int32Array(rows * contextLength)
  const contextOf = new Int32Array(tiles.length).fill(contextLength)
  for (const [row, list] of contexts.entries())
    for (const [place, tile] of list.entries()) {
      context[row * contextLength + place] = tile
      contextOf[tile] = row * (contextLength + 1) + place
    }

  const order = new Int32Array(groups * rows * places)
  const placeOf = new Int32Array(tiles.length)
  const columnOf = new Int32Array(order.length).fill(-1)
  const ranges = new Int32Array(groups * 2)
  const setsOf: number[][][] = []
  const seenBy = contexts.map((list, row) =>
    seenTiles(tiles, list, { from: row * blocksPerRow, to: (row + 1) * blocksPerRow, isFirst }),
  )
  for (let group = 0; group < groups; group++) {
    let [low, high] = [contextLength, 0]
    for (let row = 0; row < rows; row++) {
      const list = ofRow[row]!
      const cut = (g: number) => Math.floor((g * list.length) / groups)
      const sets = new Map<string, number[]>()
      for (const [i, tile] of list.slice(cut(group), cut(group + 1)).entries()) {
        const place = (group * rows + row) * places + i
        order[place] = tile
        placeOf[tile] = place
        const seen = seenBy[row]!(tile).slice(0, spans)
        const key = seen.join(' ')
        if (!sets.has(key)) sets.set(key, seen.flat())
        columnOf[place] = [...sets.keys()].indexOf(key)
        for (const [first, end] of seen) if (first < end) [low, high] = [Math.min(low, first), Math.max(high, end)]
      }
      setsOf.push([...sets.values()])
    }
    ranges.set(low < high ? [low, high] : [0, 1], 2 * group)
  }

  const nowhere = Math.max(...setsOf.map((list) => list.length))
  const columns = nowhere + (columnOf.includes(-1) ? 1 : 0)
  const before = new Int32Array(setsOf.length * columns * spans * 2)
  for (const [i, list] of setsOf.entries())
    for (const [column, limits] of list.entries()) before.set(limits, (i * columns + column) * spans * 2)
  return {
    ...{ rows, bundle, groups, places, order, placeOf, contextLength, context, contextOf, ranges, columns, spans },
    columnOf: columnOf.map((column) => (column === -1 ? nowhere : column)),
    before,
  }
}

/** Of the tiles of a row those that others see: the clean ones, then the noised ones, those of a group together. */
function contextTiles(tiles: readonly PlacedTile[], ofRow: readonly number[]): number[] {
  const groups = new Map<number | undefined, number[]>([[undefined, []]])
  for (const tile of ofRow) {
    const { group, isSeen } = tiles[tile]!
    if (!isSeen) continue
    const list = groups.get(group)
    if (list) list.push(tile)
    else groups.set(group, [tile])
  }
  return [...groups.values()].flat()
}

/** Of a tile the ranges of its row's context that it sees: of the clean tiles, and of the noised ones. */
function seenTiles(
  tiles: readonly PlacedTile[],
  context: readonly number[],
  { from, to, isFirst }: { from: number; to: number; isFirst: (block: number) => boolean },
): (tile: number) => [first: number, end: number][] {
  /** Of each block, which clean tiles stand before it in its document. */
  const clean = new Map<number, [first: number, end: number]>()
  const groupAt = new Map<number, number>()
  let first = 0
  let end = 0
  for (let block = from; block < to; block++) {
    if (isFirst(block)) first = end
    clean.set(block, [first, end])
    const tile = tiles[context[end]!]
    if (tile?.group === undefined && tile?.block === block) end++
  }
  for (const [place, tile] of context.entries()) {
    const { group } = tiles[tile]!
    if (group !== undefined && !groupAt.has(group)) groupAt.set(group, place)
  }
  return (tile) => {
    const { block, group, before } = tiles[tile]!
    const at = before > 0 ? groupAt.get(group!)! : 0
    return [clean.get(block - before)!, [at, at + before]]
  }
}

/** Where positions of [copies + 1, rows, length] that stand in tiles are in [P, blockSize]. */
export function placesIn({ starts, blockSize }: Tiles, index: Int32Array): Int32Array {
  const tileAt = new Map<number, number>()
  for (const [tile, start] of starts.entries()) tileAt.set(start, tile)
  return index.map((i) => tileAt.get(i - (i % blockSize))! * blockSize + (i % blockSize))
}
