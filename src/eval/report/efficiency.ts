// Compares two training curves: how many tokens each needs for the same NELBO. Knows nothing about what differs in them.
import type { EvaluationPoint, TokenEfficiency } from './types.ts'

/**
 * Tokens at which a curve first comes down to `target` nats per token, interpolated linearly between the evaluations
 * around it; undefined where it never does.
 */
export function tokensToReach(curve: readonly EvaluationPoint[], target: number): number | undefined {
  const after = curve.findIndex((point) => point.nelbo <= target)
  if (after === -1) return undefined
  const high = curve[after]!
  const low = curve[after - 1]
  if (!low) return high.tokens
  return low.tokens + ((high.tokens - low.tokens) * (low.nelbo - target)) / (low.nelbo - high.nelbo)
}

/** The comparison at the final NELBO of the run from base weights. */
export function tokenEfficiency(fromBase: EvaluationPoint[], fromRandom: EvaluationPoint[]): TokenEfficiency {
  const target = fromBase.at(-1)?.nelbo ?? Number.NaN
  return {
    fromBase,
    fromRandom,
    target,
    tokensFromBase: tokensToReach(fromBase, target),
    tokensFromRandom: tokensToReach(fromRandom, target),
  }
}
