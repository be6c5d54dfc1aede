// What positions cost, and which of them pay: drafts are worth their place in a forward only while they bring tokens faster than
// the rest of it does.

/** Weight of what was seen before, at each observation. */
const MEMORY = 0.98

/** Spread of the positions, beside their mean, below which a slope says nothing. */
const LEAST_SPREAD = 0.05

export interface CostMeter {
  /** A forward of so many positions took so long. */
  observe(positions: number, milliseconds: number): void
  /** Time of one more position beside that of a forward without any; 0 as long as forwards are too alike to tell. */
  perPosition(): number
}

/** Fits time = a + b positions to the latest forwards (least squares, the older ones weighing less) and gives b / a. */
export function createCostMeter(): CostMeter {
  let [count, x, y, xx, xy] = [0, 0, 0, 0, 0]
  return {
    observe(positions, milliseconds) {
      count = MEMORY * count + 1
      x = MEMORY * x + positions
      y = MEMORY * y + milliseconds
      xx = MEMORY * xx + positions * positions
      xy = MEMORY * xy + positions * milliseconds
    },
    perPosition() {
      const variance = count * xx - x * x
      if (count < 4 || variance <= LEAST_SPREAD * x * x) return 0
      const slope = (count * xy - x * y) / variance
      const start = (y - slope * x) / count
      if (slope <= 0) return 0
      // Forwards without positions are not seen: where the line meets 0 before, all of the time is the positions'.
      return start <= 0 ? Number.POSITIVE_INFINITY : slope / start
    },
  }
}

/**
 * The least probability of being accepted at which one more draft brings tokens faster than a forward does without it: with a
 * forward's time 1 / n + c r, of n sequences that share it and r positions of each at a cost c, and t tokens of each, d t / d r
 * must be above t c / (1 / n + c r).
 */
export function breakEven(
  { sequences, positionCost }: { sequences: number; positionCost: number },
  { tokens, positions }: { tokens: number; positions: number },
): number {
  const shared = sequences * positionCost
  return shared === Number.POSITIVE_INFINITY ? tokens / positions : (shared * tokens) / (1 + shared * positions)
}
