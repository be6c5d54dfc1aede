import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { checkSizes, createPacker, type Packable } from './pack.ts'
import { scoredTokens } from './scored.ts'

const EOS = 9999

const settings = fc
  .record({
    rows: fc.integer({ min: 1, max: 5 }),
    blocks: fc.integer({ min: 1, max: 9 }),
    blockSize: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ rows, blocks, blockSize }) => ({ rows, length: blocks * blockSize, blockSize }))

const work = settings.chain((sizes) =>
  fc.record({
    sizes: fc.constant(sizes),
    pieces: fc.array(fc.array(fc.nat(1), { minLength: 1, maxLength: sizes.length }), { maxLength: 30 }).map((masks) => {
      let next = 0
      return masks.map(
        (mask, i): Packable => ({
          id: `d${i}`,
          ids: Int32Array.from(mask, () => next++), // every token differs from every other
          maskable: Uint8Array.from(mask),
        }),
      )
    }),
  }),
)

describe('createPacker', () => {
  test('every token of a placed piece appears once, in order, in one row, aligned, and nothing else does', () => {
    fc.assert(
      fc.property(work, ({ sizes, pieces }) => {
        const { rows, length, blockSize } = sizes
        const packer = createPacker({ ...sizes, eosId: EOS, byteLength: (ids) => 10 * ids.length })
        const placed = pieces.filter((piece) => packer.place(piece))
        const batch = packer.finish()
        expect(batch.documentIds).toEqual(placed.map((piece) => piece.id))

        const found = new Set<number>()
        let tokens = 0
        for (let row = 0; row < rows; row++) {
          const at = (name: 'ids' | 'documents' | 'positions' | 'maskable' | 'padding') =>
            batch[name].subarray(row * length, (row + 1) * length)
          const documents = at('documents')
          const used = documents.indexOf(-1) === -1 ? length : documents.indexOf(-1)
          tokens += used
          // The tail holds nothing.
          expect(documents.subarray(used).every((document) => document === -1)).toBe(true)
          expect(
            at('ids')
              .subarray(used)
              .every((id) => id === EOS),
          ).toBe(true)
          expect(
            [
              ...at('positions').subarray(used),
              ...at('maskable').subarray(used),
              ...at('padding').subarray(used),
            ].every((value) => value === 0),
          ).toBe(true)
          for (let start = 0, document = 0; start < used; document++) {
            expect(documents[start]).toBe(document)
            expect(start % blockSize).toBe(0)
            const piece = placed.find((candidate) => candidate.ids[0] === at('ids')[start])!
            const size = piece.ids.length
            const end = start + Math.ceil(size / blockSize) * blockSize
            expect(documents.subarray(start, end).every((value) => value === document)).toBe(true)
            expect(at('ids').subarray(start, start + size)).toEqual(piece.ids)
            expect(
              at('ids')
                .subarray(start + size, end)
                .every((id) => id === EOS),
            ).toBe(true)
            expect(at('maskable').subarray(start, start + size)).toEqual(piece.maskable)
            expect(
              at('maskable')
                .subarray(start + size, end)
                .every((value) => value === 1),
            ).toBe(true)
            const padding = Array.from({ length: end - start }, (_, i) => (i < size ? 0 : 1))
            expect([...at('padding').subarray(start, end)]).toEqual(padding)
            expect([...at('positions').subarray(start, end)]).toEqual(Array.from({ length: end - start }, (_, i) => i))
            found.add(piece.ids[0]!)
            start = end
          }
        }
        expect(found.size).toBe(placed.length)
        expect(batch.tokens).toBe(tokens)
        // All that is predicted from something, without padding.
        const scored = placed.flatMap((piece) => [...piece.maskable].slice(1)).filter((value) => value === 1)
        expect(scoredTokens(batch)).toBe(scored.length)
        expect(batch.bytes).toBe(10 * scored.length)
      }),
    )
  })

  test('a piece goes into the first row with room, and is refused only where none has it', () => {
    fc.assert(
      fc.property(work, ({ sizes, pieces }) => {
        const { rows, length, blockSize } = sizes
        const packer = createPacker({ ...sizes, eosId: EOS, byteLength: () => 0 })
        const used = new Array<number>(rows).fill(0)
        for (const piece of pieces) {
          const padded = Math.ceil(piece.ids.length / blockSize) * blockSize
          const row = used.findIndex((taken) => taken + padded <= length)
          expect(packer.place(piece)).toBe(row !== -1)
          if (row !== -1) used[row]! += padded
          expect(packer.full()).toBe(used.every((taken) => taken === length))
        }
      }),
    )
  })

  test('the layout in small', () => {
    const packer = createPacker({ rows: 2, length: 8, blockSize: 4, eosId: EOS, byteLength: (ids) => ids.length })
    const piece = (id: string, ids: number[], maskable: number[]) => ({
      id,
      ids: Int32Array.from(ids),
      maskable: Uint8Array.from(maskable),
    })
    expect(packer.place(piece('a', [1, 2, 3, 4, 5], [0, 0, 1, 1, 1]))).toBe(true)
    expect(packer.place(piece('b', [6, 7], [1, 1]))).toBe(true)
    expect(packer.finish()).toEqual({
      rows: 2,
      length: 8,
      ids: Int32Array.from([1, 2, 3, 4, 5, EOS, EOS, EOS, 6, 7, EOS, EOS, EOS, EOS, EOS, EOS]),
      documents: Int32Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1]),
      positions: Int32Array.from([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 0, 0, 0, 0]),
      maskable: Uint8Array.from([0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]),
      padding: Uint8Array.from([0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]),
      documentIds: ['a', 'b'],
      tokens: 12,
      bytes: 4, // without the first token of b
    })
  })
})

test('checkSizes names what is wrong', () => {
  expect(() => checkSizes({ rows: 0, length: 8, blockSize: 4 })).toThrow(UserError)
  expect(() => checkSizes({ rows: 1, length: 7.5, blockSize: 4 })).toThrow(/length is 7\.5/)
  expect(() => checkSizes({ rows: 1, length: 10, blockSize: 4 })).toThrow(
    /length 10 is not a multiple of the block size 4/,
  )
})
