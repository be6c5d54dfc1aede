// The layout of quantised matrices: sizes, names in a checkpoint, and back to float32. Knows nothing about how values
// are rounded, files or graphs.
import { type BlockFormat, type InferenceParameter, isQuantized, type QuantizedParameter } from '../core/types.ts'

/** Shapes of the tensors that store a matrix [out, in]; see `QuantizedParameter`. */
export interface BlockLayout {
  /** Blocks in a row. */
  blocks: number
  /** Bytes of a row of packed numbers. */
  rowBytes: number
  /** Type of the packed numbers in files and programs. */
  dtype: 'uint8' | 'int8'
  /** [out, blocks, bytes], or [out, in] where they are signed. */
  packed: readonly number[]
  /** [out, blocks], or [out] where there is one per row. */
  scales: readonly number[]
  zeroPoints: readonly [out: number, bytes: number]
}

/** The layout of a matrix [out, in], where `in` is a multiple of the block size. */
export function blockLayout(shape: readonly number[], { bits, blockSize, activations }: BlockFormat): BlockLayout {
  const [out, width] = shape
  const blocks = width / blockSize
  const blockBytes = (blockSize * bits) / 8
  const zeroPoints = [out, Math.ceil((blocks * bits) / 8)] as const
  const common = { blocks, rowBytes: blocks * blockBytes, zeroPoints }
  return activations
    ? { ...common, dtype: 'int8', packed: [out, width], scales: [out] }
    : { ...common, dtype: 'uint8', packed: [out, blocks, blockBytes], scales: [out, blocks] }
}

/** The format of a matrix [out, in] whose products round their inputs to 8 bits too. */
export const rowFormat = (shape: readonly number[]): BlockFormat => ({
  bits: 8,
  blockSize: shape[1],
  asymmetric: false,
  activations: 8,
})

/** Unsigned numbers with the zero point 128 as signed ones, or back, in place. */
export function flipSigns(bytes: Uint8Array | Int8Array): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] ^= 0x80
}

export interface StoredNames {
  packed: string
  scales: string
  zeroPoints: string
  offsets: string
}

/** Names of the tensors that store the matrix `name`: `x.weight` is x.weight, x.scales and x.zero_points or, for offsets, x.minima. */
export function quantizedNames(name: string): StoredNames {
  const base = name.replace(/\.weight$/, '')
  return { packed: name, scales: `${base}.scales`, zeroPoints: `${base}.zero_points`, offsets: `${base}.minima` }
}

/** Zeros of the matrix [out, in] in a format. */
export function emptyQuantized(shape: readonly number[], format: BlockFormat): QuantizedParameter {
  const layout = blockLayout(shape, format)
  const size = (dims: readonly number[]) => dims.reduce((product, dim) => product * dim, 1)
  return {
    shape,
    format,
    packed: new Uint8Array(size(layout.packed)),
    scales: new Float32Array(size(layout.scales)),
    zeroPoints: format.asymmetric ? new Uint8Array(size(layout.zeroPoints)) : undefined,
    ...(format.offsets ? { offsets: new Float32Array(size(layout.scales)) } : {}),
  }
}

/** The `index`-th unsigned number of packed ones, from the byte `start` on. */
export const unpackAt = (bytes: Uint8Array, start: number, index: number, bits: 4 | 8): number =>
  bits === 8 ? bytes[start + index] : (bytes[start + (index >> 1)] >> ((index & 1) << 2)) & 15

/** Puts an unsigned number where `unpackAt` finds it; the place must hold 0. */
export function packAt(bytes: Uint8Array, start: number, index: number, bits: 4 | 8, value: number): void {
  if (bits === 8) bytes[start + index] = value
  else bytes[start + (index >> 1)] |= value << ((index & 1) << 2)
}

/** The float32 values [out, in]. */
export function dequantize({ shape, format, packed, scales, zeroPoints, offsets }: QuantizedParameter): Float32Array {
  const [out, width] = shape
  const { bits, blockSize } = format
  const layout = blockLayout(shape, format)
  const { rowBytes } = layout
  const values = new Float32Array(out * width)
  for (let row = 0; row < out; row++)
    for (let block = 0; block < layout.blocks; block++) {
      const scale = scales[row * layout.blocks + block]
      const middle = offsets ? 0 : 1 << (bits - 1)
      const zero = zeroPoints ? unpackAt(zeroPoints, row * layout.zeroPoints[1], block, bits) : middle
      // Not 0, to which -0 would add up to 0.
      const offset = offsets?.[row * layout.blocks + block] ?? -0
      for (let i = block * blockSize; i < (block + 1) * blockSize; i++)
        values[row * width + i] = (unpackAt(packed, row * rowBytes, i, bits) - zero) * scale + offset
    }
  return values
}

/** The float32 values of a parameter, read where they are not there. */
export async function floatValues(parameter: InferenceParameter): Promise<Float32Array> {
  const given = 'read' in parameter && parameter.read ? await parameter.read() : parameter
  if (isQuantized(given)) return dequantize(given)
  if ('data' in given) return given.data
  throw new Error('a parameter that is only mapped cannot be read')
}

/**
 * Whether a parameter is a matrix of a product or an embedding. The router of a mixture of experts is small, and its
 * choices are all or nothing, so it keeps its precision.
 */
export const isMatrixToQuantize = (name: string, shape: readonly number[]): boolean =>
  shape.length === 2 && !/\.mlp\.gate\.weight$|router/.test(name)
