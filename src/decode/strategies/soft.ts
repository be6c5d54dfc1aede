// Soft parallel decoding (DMax, Chen et al. 2026, https://arxiv.org/abs/2604.08302): a position that is not sure enough is fed as
// a mixture of the mask and its predicted token, and tokens may be overwritten. Only for models trained so.
import type { StrategySettings } from '../settings.ts'
import type { Decide, Strategy } from '../types.ts'
import { edit } from './edit.ts'

/** The rule of `edit`, in which masks that stay are drawn to their prediction by its confidence. */
export const soft = (settings: StrategySettings): Strategy => ({
  edits: true,
  softStates: true,
  begin() {
    const decide: Decide = edit(settings).begin()
    return (block, predictions) => {
      const decision = decide(block, predictions)
      const chosen = new Set(decision.commit)
      const { tokens, confidence } = predictions
      const waiting = block.open.flatMap((_, i) => (block.current[i] === undefined && !chosen.has(i) ? [i] : []))
      return { ...decision, soft: new Map(waiting.map((i) => [i, { token: tokens[i], weight: confidence[i] }])) }
    }
  },
})
