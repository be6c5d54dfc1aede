// Distinguishes a run that has diverged from one that is merely noisy. Knows nothing about where the numbers come from.
import type { StepResult } from './types.ts'

/** Losses and gradient norms of the latest steps, oldest first: plain JSON, kept in a checkpoint. */
export interface RecentSteps {
  losses: number[]
  gradNorms: number[]
}

/** Steps that the medians are taken over, and steps in a row that must lie far above them. */
const windowSteps = 64
const patience = 8

/**
 * Records a step. Returns why the run has diverged, or undefined where it has not: at once where the loss or the gradient
 * norm is not finite, else where one of them was more than `factor` times its median over the 64 steps before, 8 steps in
 * a row. Single spikes are normal (the ELBO's weights 1/t reach 1000) and gradient clipping takes care of them.
 */
export function observeStep(
  recent: RecentSteps,
  result: Pick<StepResult, 'loss' | 'gradNorm'>,
  factor: number,
): string | undefined {
  const series = [
    ['loss', recent.losses, result.loss],
    ['gradient norm', recent.gradNorms, result.gradNorm],
  ] as const
  for (const [name, , value] of series) if (!Number.isFinite(value)) return `the ${name} is ${value}`
  for (const [name, values, value] of series) {
    values.push(value)
    if (values.length > windowSteps + patience) values.shift()
    if (values.length <= 2 * patience) continue
    const usual = median(values.slice(0, -patience))
    if (values.slice(-patience).every((late) => late > factor * usual)) {
      return `the ${name} has exploded: ${value.toPrecision(4)}, and for ${patience} steps more than ${factor} times the usual ${usual.toPrecision(4)}`
    }
  }
  return undefined
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}
