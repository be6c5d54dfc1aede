// The block formats of ggml, to float32. Each function reads whole blocks; the layouts are those of ggml-quants.
// Knows nothing about files. Products are formed in float64 and rounded once, which gives ggml's float32 results.
import { decodeBFloat16, decodeFloat16, halfValues } from './float.ts'

export interface QuantizedType {
  name: string
  /** Elements in a block. */
  blockSize: number
  /** Bytes of a block. */
  blockBytes: number
  /** Writes `input.length / blockBytes` blocks to `output`. */
  dequantize(input: Uint8Array, output: Float32Array): void
}

/** Float16 at a byte offset. */
export type HalfReader = (at: number) => number

/** Runs `decode` on each block: at the byte `p` of the input, to the element `o` of the output. */
const blockwise =
  (
    blockSize: number,
    blockBytes: number,
    decode: (input: Uint8Array, p: number, output: Float32Array, o: number, half: HalfReader) => void,
  ) =>
  (input: Uint8Array, output: Float32Array): void => {
    const table = halfValues()
    const half: HalfReader = (at) => table[input[at]! | (input[at + 1]! << 8)]!
    for (let p = 0, o = 0; p < input.length; p += blockBytes, o += blockSize) decode(input, p, output, o, half)
  }

const signed = (byte: number): number => (byte << 24) >> 24

const type = (
  name: string,
  blockSize: number,
  blockBytes: number,
  decode: Parameters<typeof blockwise>[2],
): QuantizedType => ({ name, blockSize, blockBytes, dequantize: blockwise(blockSize, blockBytes, decode) })

/** 16-bit values of a byte array at any alignment. */
const words = (input: Uint8Array): Uint16Array =>
  input.byteOffset % 2 === 0
    ? new Uint16Array(input.buffer, input.byteOffset, input.length / 2)
    : new Uint16Array(input.slice().buffer)

const F32: QuantizedType = {
  name: 'F32',
  blockSize: 1,
  blockBytes: 4,
  dequantize: (input, output) => new Uint8Array(output.buffer, output.byteOffset, output.byteLength).set(input),
}

const F16: QuantizedType = {
  name: 'F16',
  blockSize: 1,
  blockBytes: 2,
  dequantize: (input, output) => decodeFloat16(words(input), output),
}

const BF16: QuantizedType = {
  name: 'BF16',
  blockSize: 1,
  blockBytes: 2,
  dequantize: (input, output) => decodeBFloat16(words(input), output),
}

// The first 16 elements of a block of 32 are the low nibbles, the last 16 the high ones.

const Q4_0 = type('Q4_0', 32, 18, (input, p, output, o, half) => {
  const scale = half(p)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 2 + i]!
    output[o + i] = scale * ((byte & 15) - 8)
    output[o + 16 + i] = scale * ((byte >> 4) - 8)
  }
})

const Q4_1 = type('Q4_1', 32, 20, (input, p, output, o, half) => {
  const scale = half(p)
  const minimum = half(p + 2)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 4 + i]!
    output[o + i] = scale * (byte & 15) + minimum
    output[o + 16 + i] = scale * (byte >> 4) + minimum
  }
})

/** The fifth bits of a block: bit i belongs to element i. */
const fifthBits = (input: Uint8Array, p: number): number =>
  input[p]! | (input[p + 1]! << 8) | (input[p + 2]! << 16) | (input[p + 3]! << 24)

const Q5_0 = type('Q5_0', 32, 22, (input, p, output, o, half) => {
  const scale = half(p)
  const high = fifthBits(input, p + 2)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 6 + i]!
    output[o + i] = scale * (((byte & 15) | (((high >>> i) & 1) << 4)) - 16)
    output[o + 16 + i] = scale * (((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16)
  }
})

const Q5_1 = type('Q5_1', 32, 24, (input, p, output, o, half) => {
  const scale = half(p)
  const minimum = half(p + 2)
  const high = fifthBits(input, p + 4)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 8 + i]!
    output[o + i] = scale * ((byte & 15) | (((high >>> i) & 1) << 4)) + minimum
    output[o + 16 + i] = scale * ((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) + minimum
  }
})

const Q8_0 = type('Q8_0', 32, 34, (input, p, output, o, half) => {
  const scale = half(p)
  for (let i = 0; i < 32; i++) output[o + i] = scale * signed(input[p + 2 + i]!)
})

// The K-quants have super-blocks of 256 elements. In Q4_K and Q5_K, eight sub-blocks of 32 have a six-bit scale and a
// six-bit minimum each, packed into 12 bytes.

export const subScale = (input: Uint8Array, p: number, i: number): number =>
  i < 4 ? input[p + i]! & 63 : (input[p + i + 4]! & 15) | ((input[p + i - 4]! >> 6) << 4)

export const subMinimum = (input: Uint8Array, p: number, i: number): number =>
  i < 4 ? input[p + i + 4]! & 63 : (input[p + i + 4]! >> 4) | ((input[p + i]! >> 6) << 4)

const Q4_K = type('Q4_K', 256, 144, (input, p, output, o, half) => {
  const scale = half(p)
  const minimumScale = half(p + 2)
  for (let sub = 0; sub < 8; sub++) {
    const d = scale * subScale(input, p + 4, sub)
    const m = minimumScale * subMinimum(input, p + 4, sub)
    const quants = p + 16 + 32 * (sub >> 1)
    const shift = 4 * (sub & 1)
    for (let i = 0; i < 32; i++) output[o + 32 * sub + i] = d * ((input[quants + i]! >> shift) & 15) - m
  }
})

const Q5_K = type('Q5_K', 256, 176, (input, p, output, o, half) => {
  const scale = half(p)
  const minimumScale = half(p + 2)
  for (let sub = 0; sub < 8; sub++) {
    const d = scale * subScale(input, p + 4, sub)
    const m = minimumScale * subMinimum(input, p + 4, sub)
    const high = p + 16
    const quants = p + 48 + 32 * (sub >> 1)
    const shift = 4 * (sub & 1)
    for (let i = 0; i < 32; i++) {
      const quant = ((input[quants + i]! >> shift) & 15) | (((input[high + i]! >> sub) & 1) << 4)
      output[o + 32 * sub + i] = d * quant - m
    }
  }
})

const Q6_K = type('Q6_K', 256, 210, (input, p, output, o, half) => {
  const scale = half(p + 208)
  // Halves of 128 elements, each of four runs of 32: run r takes a nibble of the low bits and bit pair r of the high.
  for (let h = 0; h < 2; h++) {
    for (let run = 0; run < 4; run++) {
      const low = p + 64 * h + 32 * (run & 1)
      const high = p + 128 + 32 * h
      const shift = 4 * (run >> 1)
      for (let i = 0; i < 32; i++) {
        const quant = ((input[low + i]! >> shift) & 15) | (((input[high + i]! >> (2 * run)) & 3) << 4)
        const subScaleAt = p + 192 + 8 * h + 2 * run + (i >> 4)
        output[o + 128 * h + 32 * run + i] = scale * signed(input[subScaleAt]!) * (quant - 32)
      }
    }
  }
})

/** The types that can be read, by ggml's number. */
export const quantizedTypes: ReadonlyMap<number, QuantizedType> = new Map([
  [0, F32],
  [1, F16],
  [2, Q4_0],
  [3, Q4_1],
  [6, Q5_0],
  [7, Q5_1],
  [8, Q8_0],
  [12, Q4_K],
  [13, Q5_K],
  [14, Q6_K],
  [30, BF16],
])
