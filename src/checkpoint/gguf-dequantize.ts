// The block formats of ggml, to float32. Each function reads whole blocks; the layouts are those of ggml-quants.
// Knows nothing about files. Products are formed in float64 and rounded once, which gives ggml's float32 results.
import { decodeBFloat16, decodeFloat16 } from '../formats/float.ts'
import { iqTypes } from './gguf-iq.ts'
import { bits32, blockType, nibble, type QuantizedType, signed, uint16 } from './gguf-type.ts'

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

const Q4_0 = blockType('Q4_0', 32, 18, (input, p, output, o, half) => {
  const scale = half(p)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 2 + i]!
    output[o + i] = scale * ((byte & 15) - 8)
    output[o + 16 + i] = scale * ((byte >> 4) - 8)
  }
})

const Q4_1 = blockType('Q4_1', 32, 20, (input, p, output, o, half) => {
  const scale = half(p)
  const minimum = half(p + 2)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 4 + i]!
    output[o + i] = scale * (byte & 15) + minimum
    output[o + 16 + i] = scale * (byte >> 4) + minimum
  }
})

const Q5_0 = blockType('Q5_0', 32, 22, (input, p, output, o, half) => {
  const scale = half(p)
  // Bit i belongs to element i.
  const high = bits32(input, p + 2)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 6 + i]!
    output[o + i] = scale * (((byte & 15) | (((high >>> i) & 1) << 4)) - 16)
    output[o + 16 + i] = scale * (((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16)
  }
})

const Q5_1 = blockType('Q5_1', 32, 24, (input, p, output, o, half) => {
  const scale = half(p)
  const minimum = half(p + 2)
  const high = bits32(input, p + 4)
  for (let i = 0; i < 16; i++) {
    const byte = input[p + 8 + i]!
    output[o + i] = scale * ((byte & 15) | (((high >>> i) & 1) << 4)) + minimum
    output[o + 16 + i] = scale * ((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) + minimum
  }
})

const Q8_0 = blockType('Q8_0', 32, 34, (input, p, output, o, half) => {
  const scale = half(p)
  for (let i = 0; i < 32; i++) output[o + i] = scale * signed(input[p + 2 + i]!)
})

// The K-quants have super-blocks of 256 elements. In Q4_K and Q5_K, eight sub-blocks of 32 have a six-bit scale and a
// six-bit minimum each, packed into 12 bytes.

export const subScale = (input: Uint8Array, p: number, i: number): number =>
  i < 4 ? input[p + i]! & 63 : (input[p + i + 4]! & 15) | ((input[p + i - 4]! >> 6) << 4)

export const subMinimum = (input: Uint8Array, p: number, i: number): number =>
  i < 4 ? input[p + i + 4]! & 63 : (input[p + i + 4]! >> 4) | ((input[p + i]! >> 6) << 4)

const Q4_K = blockType('Q4_K', 256, 144, (input, p, output, o, half) => {
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

const Q5_K = blockType('Q5_K', 256, 176, (input, p, output, o, half) => {
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

const Q6_K = blockType('Q6_K', 256, 210, (input, p, output, o, half) => {
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

// In Q2_K and Q3_K, sixteen sub-blocks of 16. Element i of a half of 128 is bit pair i / 32 of byte i % 32.

const bitPair = (input: Uint8Array, p: number, i: number): number =>
  (input[p + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3

const Q2_K = blockType('Q2_K', 256, 84, (input, p, output, o, half) => {
  for (let i = 0; i < 256; i++) {
    const sub = input[p + (i >> 4)]!
    output[o + i] = half(p + 80) * (sub & 15) * bitPair(input, p + 16, i) - half(p + 82) * (sub >> 4)
  }
})

const Q3_K = blockType('Q3_K', 256, 110, (input, p, output, o, half) => {
  for (let sub = 0; sub < 16; sub++) {
    const low = (input[p + 96 + (sub & 7)]! >> (4 * (sub >> 3))) & 15
    const high = (input[p + 104 + (sub & 3)]! >> (2 * (sub >> 2))) & 3
    const scale = half(p + 108) * ((low | (high << 4)) - 32)
    for (let i = 16 * sub; i < 16 * sub + 16; i++) {
      const third = (input[p + (i & 31)]! >> (i >> 5)) & 1
      output[o + i] = scale * (bitPair(input, p + 32, i) - (third ? 0 : 4))
    }
  }
})

// Values from a table: four bits name one.

const NONLINEAR = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]

/** E2M1 of the OCP microscaling formats, doubled. */
const FP4 = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

/** 32 elements of 16 bytes: the first half in the low bits. */
function putNamed(input: Uint8Array, p: number, output: Float32Array, o: number, scale: number, table: number[]): void {
  for (let i = 0; i < 16; i++) {
    output[o + i] = scale * table[input[p + i]! & 15]!
    output[o + 16 + i] = scale * table[input[p + i]! >> 4]!
  }
}

const IQ4_NL = blockType('IQ4_NL', 32, 18, (input, p, output, o, half) =>
  putNamed(input, p + 2, output, o, half(p), NONLINEAR),
)

const IQ4_XS = blockType('IQ4_XS', 256, 136, (input, p, output, o, half) => {
  for (let sub = 0; sub < 8; sub++) {
    const high = (uint16(input, p + 2) >> (2 * sub)) & 3
    const scale = half(p) * ((nibble(input, p + 4, sub) | (high << 4)) - 32)
    putNamed(input, p + 8 + 16 * sub, output, o + 32 * sub, scale, NONLINEAR)
  }
})

const MXFP4 = blockType('MXFP4', 32, 17, (input, p, output, o) =>
  // An exponent of bias 127, and half of it, since the table is doubled.
  putNamed(input, p + 1, output, o, 2 ** (input[p]! - 128), FP4),
)

// Ternary values: -1, 0 or 1 times a scale.

const TQ1_0 = blockType('TQ1_0', 256, 54, (input, p, output, o, half) => {
  // Five to a byte, in base 3 as fractions of 256: runs of 32, then of 16, and four to a byte at the end.
  const parts = [
    { first: 0, bytes: 32, digits: 5, at: p },
    { first: 160, bytes: 16, digits: 5, at: p + 32 },
    { first: 240, bytes: 4, digits: 4, at: p + 48 },
  ]
  for (const { first, bytes, digits, at } of parts)
    for (let digit = 0; digit < digits; digit++)
      for (let i = 0; i < bytes; i++) {
        const value = (((input[at + i]! * 3 ** digit) & 255) * 3) >> 8
        output[o + first + bytes * digit + i] = half(p + 52) * (value - 1)
      }
})

const TQ2_0 = blockType('TQ2_0', 256, 66, (input, p, output, o, half) => {
  for (let i = 0; i < 256; i++) output[o + i] = half(p + 64) * (bitPair(input, p, i) - 1)
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
  [10, Q2_K],
  [11, Q3_K],
  [12, Q4_K],
  [13, Q5_K],
  [14, Q6_K],
  [20, IQ4_NL],
  [23, IQ4_XS],
  [30, BF16],
  [34, TQ1_0],
  [35, TQ2_0],
  [39, MXFP4],
  ...iqTypes,
])

/** ggml's other types, by its number: not for weights, taken out of ggml, or too new to be read here. */
export const otherTypes: ReadonlyMap<number, string> = new Map([
  [4, 'Q4_2'],
  [5, 'Q4_3'],
  [9, 'Q8_1'],
  [15, 'Q8_K'],
  [24, 'I8'],
  [25, 'I16'],
  [26, 'I32'],
  [27, 'I64'],
  [28, 'F64'],
  [31, 'Q4_0_4_4'],
  [32, 'Q4_0_4_8'],
  [33, 'Q4_0_8_8'],
  [36, 'IQ4_NL_4_4'],
  [37, 'IQ4_NL_4_8'],
  [38, 'IQ4_NL_8_8'],
  [40, 'NVFP4'],
  [41, 'Q1_0'],
])
