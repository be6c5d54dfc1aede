// Confidence-threshold decoding (LLaDA2.0, section 5.4; Fast-dLLM): commit all that is sure enough, else the best few.
import type { Strategy } from '../types.ts'
import { mostConfident } from './choose.ts'

export interface ThresholdOptions {
  /** Commit where the confidence is strictly above. 1 and more leave only the quota. Default 0.9. */
  threshold?: number
  /**
   * Most steps a block takes: the block is split evenly over them, the first getting the rest, and a step in which
   * fewer positions are above the threshold commits that many of the most confident. Default: one position a step.
   */
  stepsPerBlock?: number
}

/** Commits every position with `confidence > threshold`; where those are fewer than the step's quota, the quota's best. */
export function threshold({ threshold = 0.9, stepsPerBlock }: ThresholdOptions = {}): Strategy {
  return {
    begin:
      () =>
      ({ step, size, leading }, { confidence }) => {
        const steps = Math.min(stepsPerBlock ?? size, size)
        const quota = leading ? Math.floor(size / steps) + (step < size % steps ? 1 : 0) : 0
        const sure = Array.from(confidence, (_, i) => i).filter((i) => confidence[i] > threshold)
        return { commit: sure.length >= quota ? sure : mostConfident(confidence, quota) }
      },
  }
}
