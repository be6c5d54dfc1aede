// Rounding and packing against a direct computation, for any shape and format.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { random } from '../core/random.ts'
import type { BlockFormat } from '../core/types.ts'
import { blockLayout, dequantize, emptyQuantized, packAt, unpackAt } from './layout.ts'
import { type BlockGrid, blockGrid, roundTo, roundToNearest } from './round.ts'

const offsets = [
  { asymmetric: false },
  { asymmetric: true },
  { asymmetric: false, offsets: true },
] as const satisfies Partial<BlockFormat>[]
const formats = fc
  .tuple(fc.constantFrom<4 | 8>(4, 8), fc.constantFrom(16, 32, 64), fc.constantFrom(...offsets))
  .map(([bits, blockSize, offset]): BlockFormat => ({ bits, blockSize, ...offset }))
const cases = fc
  .tuple(formats, fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3 }))
  .chain(([format, rows, blocks]) => {
    const width = blocks * format.blockSize
    const values = fc.float32Array({ minLength: rows * width, maxLength: rows * width, min: -3, max: 3, noNaN: true })
    return fc.tuple(fc.constant(format), fc.constant<[number, number]>([rows, width]), values)
  })

/** Bits of a byte array from the lowest up, the way ONNX packs numbers of fewer than 8. */
const bitsOf = (bytes: Uint8Array): number[] =>
  Array.from(bytes).flatMap((byte) => [...Array(8).keys()].map((i) => (byte >> i) & 1))

describe('packed numbers', () => {
  it('lie one after the other, the first in the lowest bits', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<4 | 8>(4, 8),
        fc.array(fc.integer({ min: 0, max: 15 }), { maxLength: 40 }),
        (bits, numbers) => {
          const bytes = new Uint8Array(2 + numbers.length)
          for (const [i, value] of numbers.entries()) packAt(bytes, 2, i, bits, value)
          const stored = bitsOf(bytes.subarray(2))
          for (const [i, value] of numbers.entries()) {
            expect(stored.slice(i * bits, (i + 1) * bits).reduce((sum, bit, place) => sum + bit * 2 ** place, 0)).toBe(
              value,
            )
            expect(unpackAt(bytes, 2, i, bits)).toBe(value)
          }
        },
      ),
    )
  })
})

describe('rounding to nearest', () => {
  it('takes the number of the grid that is nearest', () => {
    fc.assert(
      fc.property(cases, ([format, shape, values]) => {
        const parameter = roundToNearest(shape, values, format)
        const rounded = dequantize(parameter)
        const { blocks, zeroPoints } = blockLayout(shape, format)
        for (const [i, value] of values.entries()) {
          const row = Math.floor(i / shape[1])
          const block = Math.floor((i % shape[1]) / format.blockSize)
          const scale = parameter.scales[row * blocks + block]
          const zero = parameter.zeroPoints
            ? unpackAt(parameter.zeroPoints, row * zeroPoints[1], block, format.bits)
            : format.offsets
              ? 0
              : 2 ** (format.bits - 1)
          const offset = parameter.offsets?.[row * blocks + block] ?? 0
          const nearest = Math.min(
            ...[...Array(2 ** format.bits).keys()].map((q) => Math.abs((q - zero) * scale + offset - value)),
          )
          const rounding = (Math.abs(value) + Math.abs(offset)) * 1e-6 + 1e-44
          expect(Math.abs(rounded[i] - value)).toBeLessThanOrEqual(nearest + rounding)
        }
      }),
    )
  })

  it('changes values less than the grid that spans them does, as the weights count', () => {
    fc.assert(
      fc.property(cases, fc.nat(), ([format, , values], seed) => {
        const { bits, blockSize, asymmetric, offsets } = format
        const block = values.subarray(0, blockSize)
        const weights = random(seed).fillNormal(new Float32Array(blockSize)).map(Math.exp)
        const change = (grid: BlockGrid) =>
          block.reduce((sum, value, i) => {
            const q = roundTo(grid, value, 2 ** bits - 1)
            return sum + weights[i] * ((q - grid.zero) * grid.scale + grid.offset - value) ** 2
          }, 0)
        const [low, high] = [Math.min(...block), Math.max(...block)]
        const [from, to] = asymmetric ? [Math.min(0, low), Math.max(0, high)] : [low, high]
        const scale = Math.fround((to - from) / (2 ** bits - 1))
        const far = -low > high ? low : high
        const plain = offsets
          ? { scale, zero: 0, offset: low }
          : asymmetric
            ? { scale, zero: scale === 0 ? 0 : Math.round(-from / scale), offset: 0 }
            : { scale: Math.fround(-far / 2 ** (bits - 1)), zero: 2 ** (bits - 1), offset: 0 }
        const found = blockGrid(block, 0, blockSize, format, weights)
        const size = block.reduce((sum, value, i) => sum + weights[i] * value ** 2, 0)
        expect(change(found)).toBeLessThanOrEqual(change(plain) + 1e-7 * size + 1e-44)
      }),
      { numRuns: 300 },
    )
  })

  it('keeps values that are on a grid already, if only on a part of it', () => {
    fc.assert(
      fc.property(cases, fc.nat(), ([format, shape], seed) => {
        const draw = random(seed)
        // Half precision, as in ggml's blocks: values are not rounded, so they come back bit by bit.
        const half = (size: number) => Math.round((1 + draw.uniform()) * 1024) * size * 2 ** -14
        const stored = emptyQuantized(shape, format)
        const { blocks, rowBytes, zeroPoints } = blockLayout(shape, format)
        const top = 2 ** format.bits - 1
        for (let row = 0; row < shape[0]; row++)
          for (let block = 0; block < blocks; block++) {
            stored.scales[row * blocks + block] = half(1)
            if (stored.offsets) stored.offsets[row * blocks + block] = half(-8)
            if (stored.zeroPoints) packAt(stored.zeroPoints, row * zeroPoints[1], block, format.bits, draw.integer(top))
            const most = draw.integer(top + 1)
            for (let i = 0; i < format.blockSize; i++) {
              const q = draw.integer(most + 1)
              packAt(stored.packed, row * rowBytes, block * format.blockSize + i, format.bits, q)
            }
          }
        const values = dequantize(stored)
        const again = dequantize(roundToNearest(shape, values, format))
        expect(again.filter((value, i) => value !== values[i])).toHaveLength(0)
      }),
      { numRuns: 300 },
    )
  })

  it('knows zero, constants and the smallest values', () => {
    for (const bits of [4, 8] as const)
      for (const offset of offsets)
        for (const value of [0, 1, -0.25, 1e-30, 1e5]) {
          const format = { bits, blockSize: 16, ...offset }
          const [first, ...rest] = dequantize(roundToNearest([1, 32], new Float32Array(32).fill(value), format))
          expect(rest).toEqual(rest.map(() => first))
          expect(Math.abs(first - value)).toBeLessThanOrEqual(Math.abs(value) * 1e-6)
        }
  })
})
