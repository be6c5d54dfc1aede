// Confidence-threshold decoding (LLaDA2.0, section 5.4; Fast-dLLM): commit all that is sure enough, else the best few.
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'
import { mostConfident } from './choose.ts'

/**
 * Commits every position with `confidence > threshold`; where those are fewer than the step's quota, the quota's best. The
 * block is split evenly over `stepsPerBlock` steps, of which the first get the rest; without it the quota is one position.
 */
export function threshold({ threshold, stepsPerBlock }: StrategySettings): Strategy {
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
