// What a block format of ggml is: its sizes and how its blocks become float32.
import { halfValues } from '../formats/float.ts'

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

/** Decodes a block: at the byte `p` of the input, to the element `o` of the output. */
export type BlockDecoder = (input: Uint8Array, p: number, output: Float32Array, o: number, half: HalfReader) => void

export const blockType = (
  name: string,
  blockSize: number,
  blockBytes: number,
  decode: BlockDecoder,
): QuantizedType => ({
  name,
  blockSize,
  blockBytes,
  dequantize(input, output) {
    const table = halfValues()
    const half: HalfReader = (at) => table[uint16(input, at)]!
    for (let p = 0, o = 0; p < input.length; p += blockBytes, o += blockSize) decode(input, p, output, o, half)
  },
})

export const signed = (byte: number): number => (byte << 24) >> 24

export const uint16 = (input: Uint8Array, p: number): number => input[p]! | (input[p + 1]! << 8)

/** 32 bits, as a signed number: for bit operations. */
export const bits32 = (input: Uint8Array, p: number): number => uint16(input, p) | (uint16(input, p + 2) << 16)

/** The four bits of number `i` among numbers that are packed two to a byte, the first in the low bits. */
export const nibble = (input: Uint8Array, p: number, i: number): number => (input[p + (i >> 1)]! >> (4 * (i & 1))) & 15
