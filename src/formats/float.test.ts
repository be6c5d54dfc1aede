import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeBFloat16, decodeFloat16, encodeBFloat16, encodeFloat16 } from './float.ts'

const everyPattern = Uint16Array.from({ length: 65536 }, (_, i) => i)

const formats = {
  float16: { encode: encodeFloat16, decode: decodeFloat16, infinity: 0x7c00 },
  bfloat16: { encode: encodeBFloat16, decode: decodeBFloat16, infinity: 0x7f80 },
}

describe.each(Object.entries(formats))('%s', (_, { encode, decode, infinity }) => {
  const values = new Float32Array(65536)
  decode(everyPattern, values)
  const encodeOne = (value: number): number => {
    const output = new Uint16Array(1)
    encode(Float32Array.of(value), output)
    return output[0]!
  }

  it('gives every bit pattern back', () => {
    const back = new Uint16Array(65536)
    encode(values, back)
    for (let bits = 0; bits < 65536; bits++) {
      if (Number.isNaN(values[bits])) expect(Number.isNaN(values[back[bits]!])).toBe(true)
      else if (back[bits] !== bits) expect.fail(`${bits} became ${back[bits]}`)
    }
  })

  it('rounds to the nearest value, ties to the even one', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: infinity - 1 }),
        fc.float({ min: 0, max: 1, noNaN: true }),
        (bits, part) => {
          const low = values[bits]!
          // The value above the largest finite one would be the next power of two.
          const high = bits + 1 === infinity ? 2 * low - values[bits - 1]! : values[bits + 1]!
          const value = Math.fround(low + part * (high - low))
          const middle = (low + high) / 2
          const expected = value < middle ? bits : value > middle ? bits + 1 : bits + (bits & 1)
          expect(encodeOne(value)).toBe(expected)
          expect(encodeOne(-value)).toBe(expected | 0x8000)
        },
      ),
      {
        numRuns: 3000,
        examples: [
          [0, 0.5],
          [1, 0.5],
          [infinity - 1, 0.5],
          [0x03ff, 0.5],
          [0x0400, 0.5],
        ],
      },
    )
  })

  it('keeps infinity and NaN', () => {
    expect(encodeOne(Number.POSITIVE_INFINITY)).toBe(infinity)
    expect(encodeOne(Number.NEGATIVE_INFINITY)).toBe(infinity | 0x8000)
    expect(values[encodeOne(Number.NaN)]).toBeNaN()
    expect(encodeOne(3.4028234663852886e38)).toBe(infinity)
  })
})

it('knows reference values', () => {
  const half = new Float32Array(4)
  decodeFloat16(Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001), half)
  expect([...half]).toEqual([1, -2, 65504, 2 ** -24])
  const brain = new Float32Array(2)
  decodeBFloat16(Uint16Array.of(0x3f80, 0x4049), brain)
  expect([...brain]).toEqual([1, 3.140625])
})
