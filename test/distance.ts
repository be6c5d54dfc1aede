// How far apart two results are, for tests of what rounds. Knows nothing of what is rounded.

/** Root mean square of the difference, relative to that of what is expected. */
export function distance(actual: Float32Array, expected: Float32Array): number {
  const square = (sum: number, value: number) => sum + value * value
  const difference = expected.map((value, i) => value - actual[i])
  return Math.sqrt(difference.reduce(square, 0) / expected.reduce(square, 0))
}
