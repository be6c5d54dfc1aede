// Hierarchical decoding (dInfer's HierarchyDecoder): a run of masks is split at its surest position, so that far-apart
// positions, which depend less on each other, are decided together.
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'
import { ascending, byConfidence } from './choose.ts'

/** Commits what is above `threshold`, of every run of masks its best if above `lowThreshold`, and the best of all. */
export const hierarchy = ({ threshold, lowThreshold }: StrategySettings): Strategy => ({
  begin:
    () =>
    ({ open, leading }, { confidence }) => {
      const chosen = new Set<number>()
      let best = 0
      for (let i = 0; i < open.length; i++) {
        if (confidence[i] > threshold) chosen.add(i)
        if (i === 0 || open[i] !== open[i - 1] + 1) best = i
        else if (confidence[i] > confidence[best]) best = i
        const ends = i + 1 === open.length || open[i + 1] !== open[i] + 1
        if (ends && confidence[best] > lowThreshold) chosen.add(best)
      }
      if (leading && chosen.size === 0) chosen.add(byConfidence(confidence)[0])
      return { commit: ascending([...chosen]) }
    },
})
