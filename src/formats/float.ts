// Conversion of whole arrays between float32 and the 16-bit formats. Knows nothing about files.
// Checkpoints are little-endian, and so is every platform that ONNX Runtime supports.

const scratchFloat = new Float32Array(1)
const scratchBits = new Uint32Array(scratchFloat.buffer)

/** Bits of a float16 (IEEE 754 binary16) as a float32 value; exact. */
const decodeHalf = (bits: number): number => {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >>> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

let halfTable: Float32Array | undefined

/** The float32 value of every float16 bit pattern; 256 KB, made on first use. */
export const halfValues = (): Float32Array => {
  halfTable ??= Float32Array.from({ length: 65536 }, (_, bits) => decodeHalf(bits))
  return halfTable
}

/** Widens float16 bits to float32. `output` may share its buffer with `input` when `input` is its second half. */
export const decodeFloat16 = (input: Uint16Array, output: Float32Array): void => {
  const table = halfValues()
  for (let i = 0; i < input.length; i++) output[i] = table[input[i]!]!
}

/** Widens bfloat16 bits to float32. `output` may share its buffer with `input` when `input` is its second half. */
export const decodeBFloat16 = (input: Uint16Array, output: Float32Array): void => {
  const bits = new Uint32Array(output.buffer, output.byteOffset, output.length)
  for (let i = 0; i < input.length; i++) bits[i] = input[i]! << 16
}

/** Rounds float32 to bfloat16 bits, to nearest with ties to even; a NaN stays a (quiet) NaN. */
export const encodeBFloat16 = (input: Float32Array, output: Uint16Array): void => {
  const bits = new Uint32Array(input.buffer, input.byteOffset, input.length)
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!
    output[i] = (word & 0x7fffffff) > 0x7f800000 ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16
  }
}

/** Rounds float32 to float16 bits, to nearest with ties to even; beyond 65504 becomes infinity. */
export const encodeFloat16 = (input: Float32Array, output: Uint16Array): void => {
  const bits = new Uint32Array(input.buffer, input.byteOffset, input.length)
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!
    const sign = (word >>> 16) & 0x8000
    const magnitude = word & 0x7fffffff
    if (magnitude >= 0x47800000) {
      // 2^16 and above: infinity, or NaN.
      output[i] = sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00)
    } else if (magnitude < 0x38800000) {
      // Below 2^-14 the result is subnormal. Adding 0.5 makes float32's own rounding keep exactly ten fraction bits.
      scratchBits[0] = magnitude
      scratchFloat[0] = scratchFloat[0]! + 0.5
      output[i] = sign | (scratchBits[0]! - 0x3f000000)
    } else {
      // Rebias the exponent from 127 to 15 and round off 13 bits; a carry moves into the exponent as it should.
      output[i] = sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13)
    }
  }
}
