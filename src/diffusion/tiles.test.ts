import { describe, expect, it } from 'vitest'
import { packed } from '../../test/train/tiny.ts'
import { neededTiles, placesIn, tileSizes } from './tiles.ts'

// Row 0: documents of 16 and 8 tokens; row 1: one of 24 tokens and a tail of 8. Blocks of 4.
const batch = packed(1, [16, 8, 24], { rows: 2, length: 32, blockSize: 8 })
const clean = 2 * 64

/** Starts of the tiles in [copies + 1, rows, length]. */
const startsOf = (index: number[]) => [...neededTiles(batch, 4, 2, index).starts]

describe('needed tiles', () => {
  it('are those that hold a state, and the clean blocks of its document before it', () => {
    // Position 13 of copy 0, row 0: block 3 of the first document.
    expect(startsOf([13])).toEqual([clean, clean + 4, clean + 8, 12])
    // Position 22 of copy 1, row 0: block 1 of the second document.
    expect(startsOf([64 + 22])).toEqual([clean + 16, 64 + 20])
    // The first block of a document needs nothing else.
    expect(startsOf([32])).toEqual([32])
  })

  it('are shared by copies, clean ones among them', () => {
    expect(startsOf([5, 64 + 6])).toEqual([clean, 64 + 4, 4])
    // A token shift: a clean state predicts the first token of the block behind it.
    expect(startsOf([clean + 7])).toEqual([clean, clean + 4])
  })

  it('are one where nothing is predicted', () => {
    expect(startsOf([])).toHaveLength(1)
  })

  it('say where a state is', () => {
    const index = Int32Array.of(13, 14, clean + 5)
    const tiles = neededTiles(batch, 4, 2, index)
    const places = placesIn(tiles, index)
    expect(Array.from(places, (i) => tiles.starts[Math.floor(i / 4)]! + (i % 4))).toEqual([...index])
  })
})

describe('their attention', () => {
  it('gives each tile a place, and shows it the clean tiles of its document before it', () => {
    const index = Array.from({ length: clean }, (_, i) => i).filter((i) => batch.documents[i % 64]! >= 0 && i % 5 < 3)
    const { starts, attention } = neededTiles(batch, 4, 2, index)
    const { rows, groups, places, order, placeOf, context, contextOf, contextLength, ranges, columns } = attention
    const { columnOf, before, bundle } = attention
    expect({ bundle, groups }).toEqual(tileSizes(32, 4))
    expect(places % bundle).toBe(0)
    for (const [tile, start] of starts.entries()) {
      const place = placeOf[tile]!
      expect(order[place]).toBe(tile)
      const group = Math.floor(place / (rows * places))
      const row = Math.floor(place / places) % rows
      const at = start % 64
      expect(row).toBe(Math.floor(at / 32))
      const limits = ((group * rows + row) * columns + columnOf[place]!) * 2
      const seen: number[] = []
      for (let key = before[limits]!; key < before[limits + 1]!; key++) {
        expect(key >= ranges[2 * group]! && key < ranges[2 * group + 1]!).toBe(true)
        seen.push(starts[context[row * contextLength + key]!]!)
      }
      const first = at - batch.positions[at]!
      expect(seen).toEqual(Array.from({ length: (at - first) / 4 }, (_, i) => clean + first + 4 * i))
    }
    for (const [tile, start] of starts.entries()) {
      const [row, place] = [Math.floor(contextOf[tile]! / (contextLength + 1)), contextOf[tile]! % (contextLength + 1)]
      if (start < clean) expect(place).toBe(contextLength)
      else expect(context[row * contextLength + place]).toBe(tile)
    }
  })
})
