// Rounds float32 matrices to few bits, block by block, to the nearest value. Knows nothing about what they are for.
import type { BlockFormat, QuantizedParameter } from '../types.ts'
import { blockLayout, emptyQuantized, packAt } from './layout.ts'

/** The scale and the zero point of a block. */
export interface BlockGrid {
  scale: number
  zero: number
}

/**
 * The grid of the block of `values` from `start` to `end`. Symmetric: the value furthest from 0 is the lowest number, so
 * that all 2^bits are used (the scale may be negative). Asymmetric: from the smallest value (or 0) to the largest (or 0).
 */
export function blockGrid(
  values: Float32Array,
  start: number,
  end: number,
  { bits, asymmetric }: BlockFormat,
): BlockGrid {
  let low = 0
  let high = 0
  for (let i = start; i < end; i++) {
    const value = values[i]
    if (value < low) low = value
    else if (value > high) high = value
  }
  if (asymmetric) {
    const scale = Math.fround((high - low) / (2 ** bits - 1))
    return { scale, zero: scale === 0 ? 0 : Math.round(-low / scale) }
  }
  const zero = 2 ** (bits - 1)
  return { scale: Math.fround((-low > high ? low : high) / -zero), zero }
}

/** The number whose value on the grid is nearest. */
export function roundTo({ scale, zero }: BlockGrid, value: number, bits: 4 | 8): number {
  if (scale === 0) return zero
  const number = Math.round(value / scale) + zero
  return number < 0 ? 0 : Math.min(number, 2 ** bits - 1)
}

/** Rounds a matrix [out, in] to nearest; `in` is a multiple of the block size. The values must be finite. */
export function roundToNearest(
  shape: readonly number[],
  values: Float32Array,
  format: BlockFormat,
): QuantizedParameter {
  const [out, width] = shape
  const { bits, blockSize } = format
  const layout = blockLayout(shape, format)
  const rowBytes = layout.packed[1] * layout.packed[2]
  const parameter = emptyQuantized(shape, format)
  const { packed, scales, zeroPoints } = parameter
  for (let row = 0; row < out; row++)
    for (let block = 0; block < layout.blocks; block++) {
      const start = block * blockSize
      const end = start + blockSize
      const grid = blockGrid(values, row * width + start, row * width + end, format)
      scales[row * layout.blocks + block] = grid.scale
      if (zeroPoints) packAt(zeroPoints, row * layout.zeroPoints[1], block, bits, grid.zero)
      for (let i = start; i < end; i++)
        packAt(packed, row * rowBytes, i, bits, roundTo(grid, values[row * width + i], bits))
    }
  return parameter
}
