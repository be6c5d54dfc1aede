// The entropy-bound rule of DiffusionGemma (2026): the summed entropy of what is committed together bounds how much the
// tokens can depend on each other. What is not accepted stays masked.
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'
import { ascending } from './choose.ts'

/** Commits the positions of lowest entropy while the sum of their entropies stays under `entropyBound`. */
export const entropyBound = ({ entropyBound }: StrategySettings): Strategy => ({
  needsLogits: true,
  begin:
    () =>
    ({ open, leading }, { logits }) => {
      const width = (logits as Float32Array).length / open.length
      const entropies = open.map((_, i) => entropy((logits as Float32Array).subarray(i * width, (i + 1) * width)))
      const order = open.map((_, i) => i).sort((a, b) => entropies[a] - entropies[b] || a - b)
      let sum = 0
      let count = 0
      while (count < order.length && sum + entropies[order[count]] < entropyBound) sum += entropies[order[count++]]
      return { commit: ascending(order.slice(0, leading ? Math.max(1, count) : count)) }
    },
})

/** -sum p log p of softmax(logits), in nats. */
export function entropy(logits: Float32Array): number {
  let highest = Number.NEGATIVE_INFINITY
  for (const value of logits) if (value > highest) highest = value
  let sum = 0
  let weighted = 0
  for (const value of logits) {
    const weight = Math.exp(value - highest)
    sum += weight
    if (weight > 0) weighted += weight * (value - highest)
  }
  return Math.max(0, Math.log(sum) - weighted / sum)
}
