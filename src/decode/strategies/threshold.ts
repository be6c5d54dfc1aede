// Confidence-threshold decoding (LLaDA2.0, section 5.4; Fast-dLLM): commit all that is sure enough, else the best few.
import type { Strategy } from '../types.ts'

export interface ThresholdOptions {
  /** Commit where the confidence is strictly above. 1 and more leave only the quota. */
  threshold: number
  blockSize: number
  /**
   * Most steps a block takes: the block is split evenly over them, the first getting the rest, and a step in which
   * fewer positions are above the threshold commits that many of the most confident. Default: one position a step.
   */
  stepsPerBlock?: number
}

/** Commits every position with `confidence > threshold`; where those are fewer than the step's quota, the quota's best. */
export function threshold({ threshold, blockSize, stepsPerBlock = blockSize }: ThresholdOptions): Strategy {
  const steps = Math.min(stepsPerBlock, blockSize)
  const quotaOf = (step: number) => Math.floor(blockSize / steps) + (step < blockSize % steps ? 1 : 0)
  return ({ step }, { confidence }) => {
    const all = Array.from(confidence, (_, i) => i)
    const sure = all.filter((i) => confidence[i] > threshold)
    const quota = Math.min(quotaOf(step), all.length)
    if (sure.length >= quota) return { commit: sure }
    const best = all.sort((a, b) => confidence[b] - confidence[a] || a - b).slice(0, quota)
    return { commit: best.sort((a, b) => a - b) }
  }
}
