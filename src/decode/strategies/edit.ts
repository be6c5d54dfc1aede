// Token editing (LLaDA2.1, https://arxiv.org/abs/2602.08676, section 2; SGLang's JointThreshold): masks become tokens early, and
// tokens of the block that the model comes to doubt become others. For models trained to correct tokens.
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'
import { ascending, byConfidence } from './choose.ts'

/**
 * With v_i the predicted token: masks with p(v_i) > threshold, and tokens x_i != v_i with p(v_i) > editingThreshold, become
 * v_i. A block without masks goes on until nothing changes, for at most `maxPostSteps` steps.
 */
export const edit = ({ threshold, editingThreshold, maxPostSteps }: StrategySettings): Strategy => ({
  edits: true,
  begin() {
    let postSteps = 0
    return ({ open, current, leading }, { tokens, confidence }) => {
      const all = open.map((_, i) => i)
      const masked = all.filter((i) => current[i] === undefined)
      const filled = masked.filter((i) => confidence[i] > threshold)
      if (leading && filled.length === 0 && masked.length > 0)
        filled.push(byConfidence(confidence).find((i) => current[i] === undefined) as number)
      const edited = all.filter(
        (i) => current[i] !== undefined && current[i] !== tokens[i] && confidence[i] > editingThreshold,
      )
      if (masked.length > 0) return { commit: ascending([...filled, ...edited]), again: maxPostSteps > 0 }
      postSteps++
      return { commit: edited, again: edited.length > 0 && postSteps < maxPostSteps }
    }
  },
})
