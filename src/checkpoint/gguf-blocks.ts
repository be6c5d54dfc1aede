// The block formats of ggml that decoding uses as they are: their bytes in another order, no number changed.
// Knows nothing about files.
import type { BlockFormat, QuantizedParameter } from '../types.ts'
import { halfValues } from './float.ts'
import type { QuantizedType } from './gguf-dequantize.ts'

interface Taken {
  format: BlockFormat
  /** Puts the numbers of the block at byte `p` at byte `o` of the packed ones. */
  numbers(input: Uint8Array, p: number, packed: Uint8Array, o: number): void
}

/** ggml has the first 16 numbers of a block of 32 in the low halves of its bytes, MatMulNBits has neighbours in a byte. */
const interleave = (input: Uint8Array, p: number, packed: Uint8Array, o: number): void => {
  for (let i = 0; i < 8; i++) {
    const [even, odd] = [input[p + 2 * i]!, input[p + 2 * i + 1]!]
    packed[o + i] = (even & 15) | ((odd & 15) << 4)
    packed[o + 8 + i] = (even >> 4) | (odd & 0xf0)
  }
}

const formats: ReadonlyMap<string, Taken> = new Map([
  [
    'Q4_0',
    {
      format: { bits: 4, blockSize: 32, asymmetric: false },
      numbers: (input, p, packed, o) => interleave(input, p + 2, packed, o),
    },
  ],
  [
    'Q8_0',
    {
      format: { bits: 8, blockSize: 32, asymmetric: false },
      numbers: (input, p, packed, o) => {
        // Signed numbers become unsigned ones with the zero point 128.
        for (let i = 0; i < 32; i++) packed[o + i] = input[p + 2 + i]! ^ 0x80
      },
    },
  ],
])

/** The format that a type's blocks are in already; undefined for other types. */
export const blockFormatOf = (type: QuantizedType): BlockFormat | undefined => formats.get(type.name)?.format

/** Takes whole blocks over into a matrix of that format, the first of them as its block `first`. */
export const takeBlocks = (type: QuantizedType, input: Uint8Array, output: QuantizedParameter, first: number): void => {
  const { format, numbers } = formats.get(type.name)!
  const half = halfValues()
  const bytes = (format.blockSize * format.bits) / 8
  for (let p = 0, block = first; p < input.length; p += type.blockBytes, block++) {
    output.scales[block] = half[input[p]! | (input[p + 1]! << 8)]!
    numbers(input, p, output.packed, block * bytes)
  }
}
