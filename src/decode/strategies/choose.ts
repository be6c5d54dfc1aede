// What strategies share: indices by confidence.

/** Indices of all positions, the most confident first, the first of equals first. */
export const byConfidence = (confidence: ArrayLike<number>): number[] =>
  Array.from(confidence, (_, i) => i).sort((a, b) => confidence[b] - confidence[a] || a - b)

/** The `count` most confident positions, ascending. */
export const mostConfident = (confidence: ArrayLike<number>, count: number): number[] =>
  ascending(byConfidence(confidence).slice(0, count))

export const ascending = (indices: readonly number[]): number[] => [...indices].sort((a, b) => a - b)
