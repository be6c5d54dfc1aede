// Credit decoding (dInfer's CreditThresholdParallelDecoder): a token that is predicted again and again gathers credit, which
// lifts its probability over the threshold earlier.
import { logProbabilities } from '../sampling.ts'
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'
import { mostConfident } from './choose.ts'

/**
 * The threshold rule on softmax(logits + alpha log(1 + credit)). Credit shrinks by `decayBeta` each step; a prediction of
 * probability p earns p^`boostGamma`.
 */
export const credit = ({ threshold, creditAlpha, boostGamma, decayBeta }: StrategySettings): Strategy => ({
  needsLogits: true,
  begin() {
    /** Offset -> token -> credit. */
    const credits = new Map<number, Map<number, number>>()
    return ({ open, leading }, { tokens, confidence, logits }) => {
      const width = (logits as Float32Array).length / open.length
      const chosen: number[] = []
      const fused = open.map((offset, i) => {
        const credit = credits.get(offset) ?? new Map<number, number>()
        credits.set(offset, credit)
        for (const [token, value] of credit) credit.set(token, value * decayBeta)
        credit.set(tokens[i], (credit.get(tokens[i]) ?? 0) + confidence[i] ** boostGamma)
        // Only tokens with credit change, so that one normaliser of the plain logits serves.
        const logProbability = logProbabilities((logits as Float32Array).subarray(i * width, (i + 1) * width), 1)
        let normalizer = 1
        let best = 0
        for (const [token, value] of credit) {
          const plain = Math.exp(logProbability(token))
          const lifted = plain * (1 + value) ** creditAlpha
          normalizer += lifted - plain
          if (lifted <= best) continue
          best = lifted
          chosen[i] = token
        }
        return best / normalizer
      })
      const sure = open.map((_, i) => i).filter((i) => fused[i] > threshold)
      const commit = sure.length > 0 || !leading ? sure : mostConfident(fused, 1)
      return { commit, tokens: new Map(commit.map((i) => [i, chosen[i]])) }
    }
  },
})
