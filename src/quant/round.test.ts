// Rounding and packing against a direct computation, for any shape and format.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { blockLayout, dequantize, packAt, unpackAt } from './layout.ts'
import { roundToNearest } from './round.ts'

const formats = fc.record({
  bits: fc.constantFrom<4 | 8>(4, 8),
  blockSize: fc.constantFrom(16, 32, 64),
  asymmetric: fc.boolean(),
})
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
            : 2 ** (format.bits - 1)
          const nearest = Math.min(
            ...[...Array(2 ** format.bits).keys()].map((q) => Math.abs((q - zero) * scale - value)),
          )
          expect(Math.abs(rounded[i] - value)).toBeLessThanOrEqual(nearest + Math.abs(value) * 1e-6 + 1e-44)
        }
      }),
    )
  })

  it('moves no value by more than a step, and keeps values that are on a symmetric grid', () => {
    fc.assert(
      fc.property(cases, ([format, shape, values]) => {
        const parameter = roundToNearest(shape, values, format)
        const rounded = dequantize(parameter)
        for (const [i, value] of values.entries()) {
          const step = Math.abs(parameter.scales[Math.floor(i / format.blockSize)])
          expect(Math.abs(rounded[i] - value)).toBeLessThanOrEqual(step * 1.001 + 1e-44)
        }
        if (format.asymmetric) return
        const again = dequantize(roundToNearest(shape, rounded, format))
        for (const [i, value] of rounded.entries()) expect(again[i]).toBeCloseTo(value, 6)
      }),
    )
  })

  it('knows zero, constants and the smallest values', () => {
    for (const bits of [4, 8] as const)
      for (const asymmetric of [false, true])
        for (const value of [0, 1, -0.25, 1e-30, 1e5]) {
          const format = { bits, blockSize: 16, asymmetric }
          const [first, ...rest] = dequantize(roundToNearest([1, 32], new Float32Array(32).fill(value), format))
          expect(rest).toEqual(rest.map(() => first))
          expect(Math.abs(first - value)).toBeLessThanOrEqual(Math.abs(value) * 1e-6)
        }
  })
})
