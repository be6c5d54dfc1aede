// Seeded counter-based random numbers: a draw depends only on (seed, stream, index), so any part of a run can be
// replayed on its own. Knows nothing about what the numbers are for, and uses no Node API.
import { UserError } from './types.ts'

export interface Random {
  /** The next 32 random bits, as an integer in [0, 2^32). */
  uint32(): number
  /** Uniform in [0, 1), a multiple of 2^-24, so that it is exact in float32. */
  uniform(): number
  /** Standard normal (Box-Muller). */
  normal(): number
  /** Uniform integer in [0, n), without bias. n in [1, 2^32]. */
  integer(n: number): number
  /** Shuffles in place (Fisher-Yates) and returns the same array. */
  shuffle<T>(array: T[]): T[]
  /** Fills with what as many calls of `uniform` would return. */
  fillUniform(out: Float32Array): Float32Array
  /** Fills with what as many calls of `normal` would return, rounded to float32. */
  fillNormal(out: Float32Array): Float32Array
}

/**
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): writes the four
 * 32-bit words that belong to a 128-bit counter and a 64-bit key into `out`.
 */
export function philox4x32(
  out: Uint32Array,
  counter0: number,
  counter1: number,
  counter2: number,
  counter3: number,
  key0: number,
  key1: number,
): void {
  let c0 = counter0 | 0
  let c1 = counter1 | 0
  let c2 = counter2 | 0
  let c3 = counter3 | 0
  let k0 = key0 | 0
  let k1 = key1 | 0
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(c0, 0xd251, 0x1f53)
    const high1 = multiplyHigh(c2, 0xcd9e, 0x8d57)
    const low0 = Math.imul(c0, 0xd2511f53)
    const low1 = Math.imul(c2, 0xcd9e8d57)
    c0 = high1 ^ c1 ^ k0
    c1 = low1
    c2 = high0 ^ c3 ^ k1
    c3 = low0
    k0 = (k0 + 0x9e3779b9) | 0
    k1 = (k1 + 0xbb67ae85) | 0
  }
  out[0] = c0
  out[1] = c1
  out[2] = c2
  out[3] = c3
}

/** High 32 bits of the unsigned product of `a` and a constant given as two 16-bit halves. */
function multiplyHigh(a: number, high: number, low: number): number {
  const aLow = a & 0xffff
  const aHigh = a >>> 16
  const t = (Math.imul(aHigh, low) + (Math.imul(aLow, low) >>> 16)) | 0
  const u = (Math.imul(aLow, high) + (t & 0xffff)) | 0
  return (Math.imul(aHigh, high) + (t >>> 16) + (u >>> 16)) | 0
}

// The last counter word keeps the blocks that derive a stream's key apart from the blocks that are drawn from.
const DRAW = 0
const DERIVE = 1

/**
 * A generator for one stream. `seed` and every element of `stream` are integers in [0, 2^53); streams with different
 * elements, or a different number of them, are independent. Example: `random(seed, step, row)`.
 * Bits are the same on every machine; `normal` uses Math.log and Math.cos, whose last bit may differ between engines.
 */
export function random(seed: number, ...stream: number[]): Random {
  const words = new Uint32Array(4)
  let key0 = seed
  let key1 = high32(seed, 'seed')
  stream.forEach((element, depth) => {
    philox4x32(words, element, high32(element, 'stream'), depth, DERIVE, key0, key1)
    key0 = words[0]!
    key1 = words[1]!
  })

  let block = 0
  let used = 4
  function uint32(): number {
    if (used === 4) {
      philox4x32(words, block, Math.floor(block / 2 ** 32), 0, DRAW, key0, key1)
      block++
      used = 0
    }
    return words[used++]!
  }

  const uniform = () => (uint32() >>> 8) * 2 ** -24

  let spare: number | undefined
  function normal(): number {
    if (spare !== undefined) {
      const value = spare
      spare = undefined
      return value
    }
    const radius = Math.sqrt(-2 * Math.log((uint32() + 1) * 2 ** -32)) // (0, 1], so that the logarithm is finite
    const angle = 2 * Math.PI * (uint32() * 2 ** -32)
    spare = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }

  function integer(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 2 ** 32) throw new RangeError(`integer(n): n is ${n}, not in [1, 2^32]`)
    const limit = 2 ** 32 - (2 ** 32 % n) // values from here on would favour the small remainders
    let value = uint32()
    while (value >= limit) value = uint32()
    return value % n
  }

  return {
    uint32,
    uniform,
    normal,
    integer,
    shuffle(array) {
      for (let i = array.length - 1; i > 0; i--) {
        const j = integer(i + 1)
        const moved = array[i]!
        array[i] = array[j]!
        array[j] = moved
      }
      return array
    },
    fillUniform(out) {
      for (let i = 0; i < out.length; i++) out[i] = uniform()
      return out
    },
    fillNormal(out) {
      for (let i = 0; i < out.length; i++) out[i] = normal()
      return out
    },
  }
}

function high32(value: number, what: string): number {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new UserError(`${what} is ${value}; it must be a whole number from 0 to 2^53 - 1`)
  }
  return Math.floor(value / 2 ** 32)
}
