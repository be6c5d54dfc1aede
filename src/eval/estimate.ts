// Ratios of sums over independent rows, with standard errors. Pure functions; knows nothing about what the rows are.

/** A figure and its standard error. */
export interface Estimate {
  value: number
  /** Analytic, over the rows. NaN for a single row. */
  stderr: number
}

/**
 * The sum of `parts` over the sum of `wholes`, one of each per row. The standard error is that of a ratio of sums over
 * independent rows (Cochran, Sampling Techniques, 1977, section 6.3). NaN where the wholes sum to 0.
 */
export function ratioOfSums(parts: readonly number[], wholes: readonly number[]): Estimate {
  const { value, residuals } = linearised(parts, wholes)
  return { value, stderr: spread(residuals) }
}

/** A ratio of sums less another over the same rows: the rows' shared luck cancels in the standard error. */
export function ratioDifference(
  a: { parts: readonly number[]; wholes: readonly number[] },
  b: { parts: readonly number[]; wholes: readonly number[] },
): Estimate {
  const [first, second] = [linearised(a.parts, a.wholes), linearised(b.parts, b.wholes)]
  return {
    value: first.value - second.value,
    stderr: spread(first.residuals.map((residual, i) => residual - second.residuals[i]!)),
  }
}

/** The ratio, and what each row adds to its deviation. */
function linearised(parts: readonly number[], wholes: readonly number[]): { value: number; residuals: number[] } {
  const total = sum(wholes)
  const value = sum(parts) / total
  return { value, residuals: parts.map((part, i) => (part - value * wholes[i]!) / total) }
}

function spread(residuals: readonly number[]): number {
  const count = residuals.length
  return count < 2 ? Number.NaN : Math.sqrt((count / (count - 1)) * sum(residuals.map((residual) => residual ** 2)))
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
