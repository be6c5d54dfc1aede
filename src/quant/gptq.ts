// Error-compensated rounding (GPTQ, Frantar et al. 2023, https://arxiv.org/abs/2210.17323): columns are rounded from left to
// right, and what rounding changed is made up for in the columns that follow, so that the product with typical inputs
// changes least. Knows the sum of x x^T of those inputs, not where they come from.
import type { BlockFormat, QuantizedParameter } from '../core/types.ts'
import { blockLayout, emptyQuantized, packAt } from './layout.ts'
import { blockGrid, roundTo, storeGrid } from './round.ts'

/** Share of the mean of the diagonal that is added to it: the paper's value. */
const DAMPING = 0.01

/**
 * The upper triangular U [n, n] with U^T U = (gram + damping)^-1, of which GPTQ uses row j to make up for column j.
 * gram [n, n] is symmetric and at least positive semidefinite.
 */
export function inverseFactor(gram: ArrayLike<number>, n: number): Float32Array {
  let trace = 0
  for (let i = 0; i < n; i++) trace += gram[i * n + i]
  const damping = (DAMPING * trace) / n || 1
  // gram = R R^T with R upper triangular: Cholesky's decomposition from the last row up. R^T is kept, so that every loop
  // runs along rows: r[j * n + i] is R[i, j], for i <= j.
  const r = new Float64Array(n * n)
  for (let j = n - 1; j >= 0; j--) {
    const row = r.subarray(j * n, j * n + j + 1)
    for (let i = 0; i <= j; i++) row[i] = gram[j * n + i]
    row[j] += damping
    for (let k = j + 1; k < n; k++) {
      const factor = r[k * n + j]
      const other = r.subarray(k * n, k * n + j + 1)
      for (let i = 0; i <= j; i++) row[i] -= factor * other[i]
    }
    const pivot = 1 / Math.sqrt(row[j])
    for (let i = 0; i <= j; i++) row[i] *= pivot
  }
  // U = R^-1, row by row from the last: R U = 1, so U[i] = (e_i - sum over k > i of R[i, k] U[k]) / R[i, i].
  const u = new Float64Array(n * n)
  for (let i = n - 1; i >= 0; i--) {
    const row = u.subarray(i * n, (i + 1) * n)
    for (let k = i + 1; k < n; k++) {
      const factor = r[k * n + i]
      const other = u.subarray(k * n, (k + 1) * n)
      for (let j = k; j < n; j++) row[j] -= factor * other[j]
    }
    row[i] = 1
    const pivot = 1 / r[i * n + i]
    for (let j = i; j < n; j++) row[j] *= pivot
  }
  return Float32Array.from(u)
}

/**
 * Rounds a matrix [out, in] so that its products with inputs x change little; `factor` is `inverseFactor` of the sum of
 * their x x^T. A block's grid is that of the values as they are when its turn comes, best where a change costs most. `in` is a multiple of the block size. The values must be finite.
 */
export function roundCompensated(
  shape: readonly number[],
  values: Float32Array,
  format: BlockFormat,
  factor: Float32Array,
): QuantizedParameter {
  const [out, width] = shape
  const { bits, blockSize } = format
  const layout = blockLayout(shape, format)
  const { rowBytes } = layout
  const parameter = emptyQuantized(shape, format)
  const { packed } = parameter
  const work = values.slice()
  const errors = new Float64Array(blockSize)
  const weights = new Float64Array(blockSize)
  // All rows of one block of columns, then the next block: the rows of the factor that it needs stay in the cache.
  for (let block = 0; block < layout.blocks; block++) {
    const start = block * blockSize
    const end = start + blockSize
    // What a change of column j costs after the columns that follow have made up for it.
    for (let j = start; j < end; j++) weights[j - start] = 1 / factor[j * width + j] ** 2
    for (let row = 0; row < out; row++) {
      const current = work.subarray(row * width, (row + 1) * width)
      const grid = blockGrid(current, start, end, format, weights)
      storeGrid(parameter, row, block, grid)
      for (let j = start; j < end; j++) {
        const number = roundTo(grid, current[j], 2 ** bits - 1)
        packAt(packed, row * rowBytes, j, bits, number)
        const error = (current[j] - (number - grid.zero) * grid.scale - grid.offset) / factor[j * width + j]
        errors[j - start] = error
        for (let k = j + 1; k < end; k++) current[k] -= error * factor[j * width + k]
      }
      // Four columns at once: a pass over the row costs more than the sums.
      for (let j = 0; j < blockSize; j += 4) {
        const [a, b, c, d] = [errors[j], errors[j + 1], errors[j + 2], errors[j + 3]]
        let from = (start + j) * width + end
        for (let k = end; k < width; k++, from++)
          current[k] -=
            a * factor[from] + b * factor[from + width] + c * factor[from + 2 * width] + d * factor[from + 3 * width]
      }
    }
  }
  return parameter
}
