// Whether probabilities say how often something is right. Pure.

export interface CalibrationBins {
  /** A prediction: its probability, 0 to 1, and whether it was right. */
  add(confidence: number, right: boolean): void
  /**
   * Expected calibration error, 0 to 1 (Guo et al. 2017, equation 5): the mean distance between the probability and the share
   * of right predictions of a bin, weighed by its predictions. NaN without any.
   */
  error(): number
  readonly count: number
}

/** Equal bins of probability. */
export function calibrationBins(bins = 10): CalibrationBins {
  const apart = new Float64Array(bins)
  let count = 0
  return {
    add(confidence, right) {
      apart[Math.min(bins - 1, Math.floor(confidence * bins))]! += Number(right) - confidence
      count++
    },
    error: () => apart.reduce((sum, value) => sum + Math.abs(value), 0) / count,
    get count() {
      return count
    },
  }
}
