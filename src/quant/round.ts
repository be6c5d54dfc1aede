// Quantises float32 matrices, block by block, to the nearest value. Knows nothing about what they are for.
import type { BlockFormat, QuantizedParameter } from '../core/types.ts'
import { blockLayout, emptyQuantized, packAt } from './layout.ts'

/** The grid of a block: a number q stands for (q - zero) * scale + offset. Without offsets `offset` is 0, with them `zero` is. */
export interface BlockGrid {
  scale: number
  zero: number
  offset: number
}

/** A step of a grid on which values lie already may differ from theirs by this share of it. */
const ON_GRID = 1e-4

/** How many steps more, or fewer, than a block's numbers allow its values are taken to span, when a grid is searched for. */
const SPANS = [-1.5, -1, -0.5, 0.5, 1, 1.5]

/**
 * The grid of the block of `values` from `start` to `end`: one on which all of them lie, where there is one, so that what
 * was rounded once is not changed again. Otherwise, in 4 bits, the best of a few for the sum of `weights` (one for each
 * value) times the squared change: each spans a little more or less than the values do, and its scale (and offset) are
 * then those of least squares for the numbers that it gives. In 8 bits the grid spans the values exactly.
 */
export function blockGrid(
  values: Float32Array,
  start: number,
  end: number,
  { bits, asymmetric, offsets = false }: BlockFormat,
  weights: ArrayLike<number>,
): BlockGrid {
  const top = 2 ** bits - 1
  const middle = (top + 1) / 2
  let low = asymmetric ? 0 : Number.POSITIVE_INFINITY
  let high = asymmetric ? 0 : Number.NEGATIVE_INFINITY
  for (let i = start; i < end; i++) {
    const value = values[i]
    if (value < low) low = value
    if (value > high) high = value
  }
  const far = -low > high ? low : high
  /** The grid with `span` steps: from the smallest value to the largest, or symmetric from 0 to the farthest. */
  const spanning = (span: number, sign = -1): BlockGrid => {
    if (!asymmetric && !offsets) return { scale: Math.fround((sign * far) / span), zero: middle, offset: 0 }
    const scale = Math.fround((high - low) / span)
    if (asymmetric) return { scale, zero: scale === 0 ? 0 : Math.min(top, Math.round(-low / scale)), offset: 0 }
    // What it does not reach is cut off at both ends alike.
    return { scale, zero: 0, offset: Math.fround(low + Math.max(0, ((span - top) * scale) / 2)) }
  }
  const symmetric = !asymmetric && !offsets
  const full = symmetric ? middle : top
  const widest = spanning(full)
  if (widest.scale === 0) return widest
  // The coarsest first: its scale is exact, that of a finer one may be a third of it.
  for (let span = 1; span <= full; span++) {
    const grid = spanning(span)
    if (liesOn(grid, values, start, end, top)) return grid
    if (!symmetric || span === full) continue
    const turned = spanning(span, 1)
    if (liesOn(turned, values, start, end, top)) return turned
  }
  if (bits === 8) return widest
  const search = { best: widest, error: Number.POSITIVE_INFINITY }
  const attempt = (grid: BlockGrid) => improve(search, grid, { values, start, end, weights, top, offsets })
  attempt(widest)
  if (symmetric) attempt(spanning(middle - 1, 1))
  for (const more of SPANS) {
    if (!asymmetric) attempt(spanning(full + more))
    if (symmetric) attempt(spanning(middle - 1 + more, 1))
    if (!asymmetric) continue
    const grid = spanning(full + more)
    for (const zero of [grid.zero - 1, grid.zero, grid.zero + 1])
      if (zero >= 0 && zero <= top) attempt({ ...grid, zero })
  }
  return search.best
}

function liesOn(grid: BlockGrid, values: Float32Array, start: number, end: number, top: number): boolean {
  const { scale, zero, offset } = grid
  const most = ON_GRID * Math.abs(scale)
  for (let i = start; i < end; i++)
    if (Math.abs((roundTo(grid, values[i], top) - zero) * scale + offset - values[i]) > most) return false
  return true
}

interface Block {
  values: Float32Array
  start: number
  end: number
  weights: ArrayLike<number>
  top: number
  offsets: boolean
}

/** Keeps the grid, or that with the scale (and offset) of least squares for its numbers, where it is better than the best. */
function improve(search: { best: BlockGrid; error: number }, grid: BlockGrid, block: Block): void {
  const { values, start, end, weights, top, offsets } = block
  const { scale, zero, offset } = grid
  if (scale === 0) return
  let [sum, sumQ, sumQQ, sumX, sumQX, sumXX, error] = [0, 0, 0, 0, 0, 0, 0]
  for (let i = start; i < end; i++) {
    const x = values[i]
    const q = roundTo(grid, x, top) - zero
    const weight = weights[i - start]
    const difference = q * scale + offset - x
    error += weight * difference * difference
    const [weightedQ, weightedX] = [weight * q, weight * x]
    sum += weight
    sumQ += weightedQ
    sumQQ += weightedQ * q
    sumX += weightedX
    sumQX += weightedQ * x
    sumXX += weightedX * x
  }
  const keep = (better: BlockGrid, itsError: number) => {
    if (better.scale === 0 || itsError >= search.error) return
    search.best = better
    search.error = itsError
  }
  keep(grid, error)
  if (!offsets) {
    if (sumQQ > 0) keep({ scale: Math.fround(sumQX / sumQQ), zero, offset: 0 }, sumXX - sumQX ** 2 / sumQQ)
    return
  }
  const determinant = sum * sumQQ - sumQ ** 2
  if (!(determinant > 1e-12 * sum * sumQQ)) return
  const slope = (sum * sumQX - sumQ * sumX) / determinant
  const intercept = (sumX - slope * sumQ) / sum
  keep({ scale: Math.fround(slope), zero: 0, offset: Math.fround(intercept) }, sumXX - slope * sumQX - intercept * sumX)
}

/** The number, from 0 to `top`, whose value on the grid is nearest. */
export function roundTo({ scale, zero, offset }: BlockGrid, value: number, top: number): number {
  if (scale === 0) return zero
  const number = Math.round((value - offset) / scale) + zero
  return number < 0 ? 0 : Math.min(number, top)
}

/**
 * Rounds a matrix [out, in] to nearest; `in` is a multiple of the block size. The values must be finite. Grids are chosen
 * with large values weighing more: the block's root mean square plus |x|, as in ggml's K-quants.
 */
export function roundToNearest(
  shape: readonly number[],
  values: Float32Array,
  format: BlockFormat,
): QuantizedParameter {
  const [out, width] = shape
  const { bits, blockSize } = format
  const layout = blockLayout(shape, format)
  const { rowBytes } = layout
  const parameter = emptyQuantized(shape, format)
  const { packed } = parameter
  const weights = new Float64Array(blockSize)
  for (let row = 0; row < out; row++)
    for (let block = 0; block < layout.blocks; block++) {
      const start = row * width + block * blockSize
      let squares = 0
      for (let i = 0; i < blockSize; i++) squares += values[start + i] ** 2
      const size = Math.sqrt(squares / blockSize)
      for (let i = 0; i < blockSize; i++) weights[i] = size + Math.abs(values[start + i])
      const grid = blockGrid(values, start, start + blockSize, format, weights)
      storeGrid(parameter, row, block, grid)
      for (let i = 0; i < blockSize; i++)
        packAt(packed, row * rowBytes, block * blockSize + i, bits, roundTo(grid, values[start + i], 2 ** bits - 1))
    }
  return parameter
}

/** Puts the grid of a block where `dequantize` finds it. */
export function storeGrid(
  { shape, format, scales, zeroPoints, offsets }: QuantizedParameter,
  row: number,
  block: number,
  { scale, zero, offset }: BlockGrid,
): void {
  const layout = blockLayout(shape, format)
  const index = row * layout.blocks + block
  scales[index] = scale
  if (zeroPoints) packAt(zeroPoints, row * layout.zeroPoints[1], block, format.bits, zero)
  if (offsets) offsets[index] = offset
}
