// ggml's IQ types with code books: a run of 8 values is one entry of a book, or two of 4, times signs and a scale. Blocks have 256
// elements; the layouts are those of ggml-quants.
import { halfValues } from '../formats/float.ts'
import { iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs, type PackedGrid } from './gguf-grids.ts'
import { bits32, blockType, nibble, type QuantizedType, uint16 } from './gguf-type.ts'

/** The values of a code book, unpacked on first use. */
function book({ bits, values, packed }: PackedGrid): () => Float32Array {
  let unpacked: Float32Array | undefined
  return () => {
    if (unpacked) return unpacked
    const bytes = Buffer.from(packed, 'base64')
    const each = 8 / bits
    unpacked = Float32Array.from(
      { length: bytes.length * each },
      (_, i) => values[(bytes[Math.floor(i / each)]! >> (bits * (i % each))) & (2 ** bits - 1)]!,
    )
    return unpacked
  }
}

const book1 = book(iq1_s)
const book2xxs = book(iq2_xxs)
const book2xs = book(iq2_xs)
const book2s = book(iq2_s)
const book3xxs = book(iq3_xxs)
const book3s = book(iq3_s)

/** Writes `count` values of a book from `from` on, negative where a bit of `signs` is set. */
function put(
  output: Float32Array,
  o: number,
  values: Float32Array,
  from: number,
  count: number,
  scale: number,
  signs: number,
): void {
  for (let j = 0; j < count; j++) output[o + j] = scale * values[from + j]! * ((signs >> j) & 1 ? -1 : 1)
}

/** Seven signs are stored; the eighth makes their number even. */
function evenSigns(seven: number): number {
  let parity = seven
  for (const shift of [4, 2, 1]) parity ^= parity >> shift
  return seven | ((parity & 1) << 7)
}

const IQ2_XXS = blockType('IQ2_XXS', 256, 66, (input, p, output, o, half) => {
  for (let part = 0; part < 8; part++) {
    const at = p + 2 + 8 * part
    const rest = bits32(input, at + 4)
    const scale = half(p) * (0.5 + (rest >>> 28)) * 0.25
    for (let run = 0; run < 4; run++)
      put(
        output,
        o + 32 * part + 8 * run,
        book2xxs(),
        8 * input[at + run]!,
        8,
        scale,
        evenSigns((rest >> (7 * run)) & 127),
      )
  }
})

const IQ2_XS = blockType('IQ2_XS', 256, 74, (input, p, output, o, half) => {
  for (let run = 0; run < 32; run++) {
    const code = uint16(input, p + 2 + 2 * run)
    const scale = half(p) * (0.5 + nibble(input, p + 66, run >> 1)) * 0.25
    put(output, o + 8 * run, book2xs(), 8 * (code & 511), 8, scale, evenSigns(code >> 9))
  }
})

const IQ2_S = blockType('IQ2_S', 256, 82, (input, p, output, o, half) => {
  for (let run = 0; run < 32; run++) {
    const high = (input[p + 66 + (run >> 2)]! >> (2 * (run & 3))) & 3
    const scale = half(p) * (0.5 + nibble(input, p + 74, run >> 1)) * 0.25
    put(output, o + 8 * run, book2s(), 8 * (input[p + 2 + run]! | (high << 8)), 8, scale, input[p + 34 + run]!)
  }
})

const IQ3_XXS = blockType('IQ3_XXS', 256, 98, (input, p, output, o, half) => {
  for (let run = 0; run < 32; run++) {
    const rest = bits32(input, p + 66 + 4 * (run >> 2))
    const scale = half(p) * (0.5 + (rest >>> 28)) * 0.5
    const signs = evenSigns((rest >> (7 * (run & 3))) & 127)
    for (let i = 0; i < 2; i++)
      put(output, o + 8 * run + 4 * i, book3xxs(), 4 * input[p + 2 + 2 * run + i]!, 4, scale, signs >> (4 * i))
  }
})

const IQ3_S = blockType('IQ3_S', 256, 110, (input, p, output, o, half) => {
  for (let run = 0; run < 32; run++) {
    const scale = half(p) * (1 + 2 * nibble(input, p + 106, run >> 2))
    for (let i = 0; i < 2; i++) {
      const code = 2 * run + i
      const high = (input[p + 66 + (code >> 3)]! >> (code & 7)) & 1
      const from = 4 * (input[p + 2 + code]! | (high << 8))
      put(output, o + 4 * code, book3s(), from, 4, scale, input[p + 74 + run]! >> (4 * i))
    }
  }
})

/** A run of IQ1: an entry of the book, moved by an eighth. */
function putShifted(output: Float32Array, o: number, code: number, scale: number, negative: boolean): void {
  const values = book1()
  for (let j = 0; j < 8; j++) output[o + j] = scale * (values[8 * code + j]! + (negative ? -0.125 : 0.125))
}

const IQ1_S = blockType('IQ1_S', 256, 50, (input, p, output, o, half) => {
  for (let run = 0; run < 32; run++) {
    const rest = uint16(input, p + 34 + 2 * (run >> 2))
    const high = (rest >> (3 * (run & 3))) & 7
    const scale = half(p) * (2 * ((rest >> 12) & 7) + 1)
    putShifted(output, o + 8 * run, input[p + 2 + run]! | (high << 8), scale, (rest & 0x8000) !== 0)
  }
})

const IQ1_M = blockType('IQ1_M', 256, 56, (input, p, output, o) => {
  // The scale's four bits are the highest of each of four words of scales.
  let bits = 0
  for (let i = 0; i < 4; i++) bits |= (uint16(input, p + 48 + 2 * i) >> 12) << (4 * i)
  const blockScale = halfValues()[bits]!
  for (let run = 0; run < 32; run++) {
    const high = nibble(input, p + 32, run)
    const scale = blockScale * (2 * ((uint16(input, p + 48 + 2 * (run >> 3)) >> (3 * ((run >> 1) & 3))) & 7) + 1)
    putShifted(output, o + 8 * run, input[p + run]! | ((high & 7) << 8), scale, (high & 8) !== 0)
  }
})

/** By ggml's number. */
export const iqTypes: readonly (readonly [number, QuantizedType])[] = [
  [16, IQ2_XXS],
  [17, IQ2_XS],
  [18, IQ3_XXS],
  [19, IQ1_S],
  [21, IQ3_S],
  [22, IQ2_S],
  [29, IQ1_M],
]
