// The block formats of ggml that decoding uses as they are: their bytes in another order, no number changed.
// Knows nothing about files.
import type { BlockFormat, QuantizedParameter } from '../core/types.ts'
import { halfValues } from '../formats/float.ts'
import { subMinimum, subScale } from './gguf-dequantize.ts'
import type { HalfReader, QuantizedType } from './gguf-type.ts'

interface Taken {
  format: BlockFormat
  /** Takes the block at byte `p` over into `output`, where it is one block, or several, from `first` on. */
  take(input: Uint8Array, p: number, output: QuantizedParameter, first: number, half: HalfReader): void
}

/** ggml has the first 16 numbers of a block of 32 in the low halves of its bytes, MatMulNBits has neighbours in a byte. */
const interleave = (input: Uint8Array, p: number, packed: Uint8Array, o: number): void => {
  for (let i = 0; i < 8; i++) {
    const [even, odd] = [input[p + 2 * i]!, input[p + 2 * i + 1]!]
    packed[o + i] = (even & 15) | ((odd & 15) << 4)
    packed[o + 8 + i] = (even >> 4) | (odd & 0xf0)
  }
}

const fourBits: BlockFormat = { bits: 4, blockSize: 32, asymmetric: false }
const withOffsets: BlockFormat = { ...fourBits, offsets: true }

const formats: ReadonlyMap<string, Taken> = new Map<string, Taken>([
  [
    'Q4_0',
    {
      format: fourBits,
      take(input, p, { scales, packed }, block, half) {
        scales[block] = half(p)
        interleave(input, p + 2, packed, 16 * block)
      },
    },
  ],
  [
    'Q4_1',
    {
      format: withOffsets,
      take(input, p, { scales, offsets, packed }, block, half) {
        scales[block] = half(p)
        offsets![block] = half(p + 2)
        interleave(input, p + 4, packed, 16 * block)
      },
    },
  ],
  [
    'Q8_0',
    {
      format: { bits: 8, blockSize: 32, asymmetric: false },
      take(input, p, { scales, packed }, block, half) {
        scales[block] = half(p)
        // Signed numbers become unsigned ones with the zero point 128.
        for (let i = 0; i < 32; i++) packed[32 * block + i] = input[p + 2 + i]! ^ 0x80
      },
    },
  ],
  [
    'Q4_K',
    {
      format: withOffsets,
      take(input, p, { scales, offsets, packed }, first, half) {
        for (let sub = 0; sub < 8; sub++) {
          scales[first + sub] = half(p) * subScale(input, p + 4, sub)
          offsets![first + sub] = -half(p + 2) * subMinimum(input, p + 4, sub)
          const quants = p + 16 + 32 * (sub >> 1)
          const shift = 4 * (sub & 1)
          for (let i = 0; i < 32; i += 2)
            packed[16 * (first + sub) + i / 2] =
              ((input[quants + i]! >> shift) & 15) | (((input[quants + i + 1]! >> shift) & 15) << 4)
        }
      },
    },
  ],
])

/** The format that a type's blocks are in already; undefined for other types. */
export const blockFormatOf = (type: QuantizedType): BlockFormat | undefined => formats.get(type.name)?.format

/** Takes whole blocks over into a matrix of that format; the first of them is the matrix's number `first` of the type. */
export const takeBlocks = (type: QuantizedType, input: Uint8Array, output: QuantizedParameter, first: number): void => {
  const { format, take } = formats.get(type.name)!
  const table = halfValues()
  const half = (at: number) => table[input[at]! | (input[at + 1]! << 8)]!
  const each = type.blockSize / format.blockSize
  for (let p = 0, block = first; p < input.length; p += type.blockBytes, block++)
    take(input, p, output, block * each, half)
}
