// Whether two measurements of the same rows differ: paired bootstrap, exact McNemar test, Holm's correction. Pure functions.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'

export interface Difference {
  rows: number
  /** Means of both, and the second less the first. */
  a: number
  b: number
  difference: number
  /** 95 % interval of the difference: percentiles of a paired bootstrap. */
  low: number
  high: number
  /** Two-sided: McNemar's exact test where all values are 0 or 1, else the bootstrap's. */
  p: number
  test: 'McNemar' | 'bootstrap'
}

const RESAMPLES = 9999

/**
 * Compares values by row. `weights` (default 1 each): the figures are then ratios of sums, as bits are over bytes. The bootstrap
 * resamples rows (Efron & Tibshirani 1993, chapter 13: percentiles 2.5 and 97.5, interpolated as numpy does).
 * Throws UserError where lengths differ or there is no row.
 */
export function pairedComparison(
  a: readonly number[],
  b: readonly number[],
  { weights, seed = 0, resamples = RESAMPLES }: { weights?: readonly number[]; seed?: number; resamples?: number } = {},
): Difference {
  const rows = a.length
  if (rows === 0 || b.length !== rows || (weights && weights.length !== rows))
    throw new UserError(`cannot pair ${rows} values with ${b.length}`)
  const weight = weights ?? a.map(() => 1)
  const ratio = (values: readonly number[]) => sum(values) / sum(weight)
  const [first, second] = [ratio(a), ratio(b)]
  const apart = a.map((value, i) => (b[i] as number) - value)
  const draws = random(seed, 0x626f6f74)
  const resampled = Float64Array.from({ length: resamples }, () => {
    let [total, whole] = [0, 0]
    for (let i = 0; i < rows; i++) {
      const row = draws.integer(rows)
      total += apart[row] as number
      whole += weight[row] as number
    }
    return total / whole
  }).sort()
  const binary = !weights && [...a, ...b].every((value) => value === 0 || value === 1)
  const gained = apart.filter((value) => value > 0).length
  const lost = apart.filter((value) => value < 0).length
  return {
    ...{ rows, a: first, b: second, difference: second - first },
    ...{ low: percentile(resampled, 0.025), high: percentile(resampled, 0.975) },
    p: binary ? mcnemar(gained, lost) : bootstrapP(resampled),
    test: binary ? 'McNemar' : 'bootstrap',
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

/** Of sorted values, between neighbours. */
export function percentile(sorted: ArrayLike<number>, share: number): number {
  const at = share * (sorted.length - 1)
  const low = Math.floor(at)
  const [below, above] = [sorted[low] as number, sorted[Math.min(low + 1, sorted.length - 1)] as number]
  return below + (at - low) * (above - below)
}

/** Twice the share of resampled differences on the far side of 0, at most 1; never 0, as no bootstrap shows that. */
function bootstrapP(sorted: Float64Array): number {
  const below = sorted.filter((value) => value <= 0).length
  const above = sorted.filter((value) => value >= 0).length
  return Math.min(1, (2 * (Math.min(below, above) + 1)) / (sorted.length + 1))
}

/**
 * McNemar's exact test (1947): the two-sided probability of so uneven a split of the rows in which the two differ, were each
 * as likely to be the right one.
 */
export function mcnemar(gained: number, lost: number): number {
  const n = gained + lost
  let tail = 0
  let term = 0.5 ** n
  // 0.5^n is 0 for many rows: logarithms then.
  if (n > 1000) {
    let log = -n * Math.LN2
    for (let i = 0; i <= Math.min(gained, lost); i++) {
      tail += Math.exp(log)
      log += Math.log((n - i) / (i + 1))
    }
    return Math.min(1, 2 * tail)
  }
  for (let i = 0; i <= Math.min(gained, lost); i++) {
    tail += term
    term *= (n - i) / (i + 1)
  }
  return Math.min(1, 2 * tail)
}

/** Holm's correction (1979) of the p values of comparisons that are looked at together, in their order. */
export function holm(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((i, j) => (values[i] as number) - (values[j] as number))
  const corrected = [...values]
  let largest = 0
  for (const [rank, i] of order.entries()) {
    largest = Math.max(largest, Math.min(1, (values.length - rank) * (values[i] as number)))
    corrected[i] = largest
  }
  return corrected
}
