// The factor rule of Fast-dLLM (Wu et al. 2025, https://arxiv.org/abs/2505.22618, section 3.3): the more tokens are
// committed together, the surer each must be, because they do not see each other.
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'
import { ascending, byConfidence } from './choose.ts'

/** Commits the most confident positions, n of them as long as `(n + 1) (1 - confidence_n) < factor`. */
export const factor = ({ factor }: StrategySettings): Strategy => ({
  begin:
    () =>
    ({ leading }, { confidence }) => {
      const order = byConfidence(confidence)
      let count = 0
      while (count < order.length && (count + 2) * (1 - confidence[order[count]]) < factor) count++
      return { commit: ascending(order.slice(0, leading ? Math.max(1, count) : count)) }
    },
})
