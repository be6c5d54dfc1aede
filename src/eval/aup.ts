// Accuracy under parallelism: one number for a curve of score over tokens per forward, and the points worth choosing.

export interface CurvePoint {
  /** Tokens per forward. */
  tpf: number
  /** Share of right answers, 0 to 1. */
  score: number
}

/** Points that lose more than this to the slowest one do not count. */
const MOST_LOSS = 0.05

/**
 * AUP (Qian et al. 2026, d3LLM, arXiv 2601.07568): the area under score in percent over tokens per forward, in which a score y
 * counts as y min(1, exp(-alpha (1 - y / best))); the part before the first point counts with that point's score. `best` is
 * the best score of all methods compared. NaN without points.
 */
export function accuracyUnderParallelism(points: readonly CurvePoint[], best: number, alpha = 3): number {
  const sorted = [...points].sort((a, b) => a.tpf - b.tpf)
  const [first] = sorted
  if (!first) return Number.NaN
  const kept = sorted.filter(({ score }) => score >= first.score - MOST_LOSS)
  const weighted = ({ score }: CurvePoint) => 100 * score * Math.min(1, Math.exp(-alpha * (1 - score / best)))
  let area = first.tpf * 100 * first.score
  for (let i = 1; i < kept.length; i++)
    area += ((kept[i].tpf - kept[i - 1].tpf) * (weighted(kept[i]) + weighted(kept[i - 1]))) / 2
  return area
}

/** Indices of the points that no other beats in both values, in order of `speed`, ascending. */
export function paretoFront(points: readonly { speed: number; score: number }[]): number[] {
  const order = points
    .map((_, i) => i)
    .sort((a, b) => points[b].speed - points[a].speed || points[b].score - points[a].score)
  const front: number[] = []
  for (const i of order) if (front.every((j) => points[j].score < points[i].score)) front.push(i)
  return front.reverse()
}
