// Soft parallel decoding as DMax's released code does it (Chen et al. 2026, https://arxiv.org/abs/2604.08302). Only for models
// of on-policy uniform training, such as DMax's: they have learned to correct their own predictions.
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'

/** A block in which every prediction has at least this confidence needs no further step. */
const SETTLED = 0.9

/**
 * With v_i the predicted token and p_i its probability:
 * - masks become v_i from left to right up to the first with p_i < threshold; if that is the first mask, it alone does;
 * - every token of the block becomes v_i;
 * - in the next step the embedding of a token is p_i E(v_i) + (1 - p_i) E(mask), as long as that mixture of their lengths;
 *   masks keep the mask's;
 * - a block without masks is finished when every p_i is at least 0.9, when no token changed, or after as many steps as it has
 *   positions. (The released code also stops there while masks are left, which a threshold above 0.9 makes possible.)
 *
 * Where tokens are sampled, v_i is the sampled token and p_i its probability.
 */
export const soft = ({ threshold }: StrategySettings): Strategy => ({
  edits: true,
  softStates: true,
  begin:
    () =>
    ({ step, size, open, current, leading }, { tokens, confidence }) => {
      const all = open.map((_, i) => i)
      const masked = all.filter((i) => current[i] === undefined)
      const unsure = masked.findIndex((i) => confidence[i] < threshold)
      const sure = unsure === -1 ? masked.length : unsure
      const filled = new Set(masked.slice(0, sure === 0 && leading ? 1 : sure))
      const commit = all.filter((i) => filled.has(i) || (current[i] !== undefined && current[i] !== tokens[i]))
      const settled = commit.length === 0 || all.every((i) => confidence[i] >= SETTLED) || step + 1 >= size
      if (filled.size === masked.length && settled) return { commit }
      const hasToken = all.filter((i) => filled.has(i) || current[i] !== undefined)
      return { commit, again: true, soft: new Map(hasToken.map((i) => [i, confidence[i]])) }
    },
})
