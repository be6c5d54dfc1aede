import { describe, expect, it } from 'vitest'
import { random } from '../core/random.ts'
import { observeStep, type RecentSteps } from './divergence.ts'

/** Observes a series of losses (gradient norm 1) and returns the index of the step that is called diverged. */
function firstDiverged(losses: readonly number[]): number {
  const recent: RecentSteps = { losses: [], gradNorms: [] }
  return losses.findIndex((loss) => observeStep(recent, { loss, gradNorm: 1 }, 20) !== undefined)
}

describe('observeStep', () => {
  const noisy = Array.from(random(1).fillUniform(new Float32Array(200)), (u) => 2 + u)

  it('lets noise, spikes and slow growth pass', () => {
    expect(firstDiverged(noisy)).toBe(-1)
    expect(firstDiverged(noisy.map((loss, i) => (i % 5 === 0 ? 1000 * loss : loss)))).toBe(-1)
    expect(firstDiverged(noisy.map((loss, i) => loss * 1.02 ** i))).toBe(-1)
  })

  it('stops an explosion after eight steps, whatever went before', () => {
    expect(firstDiverged([...noisy, ...Array(20).fill(100)])).toBe(207)
    expect(firstDiverged([...noisy.slice(0, 12), ...Array(20).fill(100)])).toBe(19)
  })

  it('stops at once where a number is not finite, and says which', () => {
    expect(firstDiverged([2, 2, Number.NaN])).toBe(2)
    const recent = { losses: [], gradNorms: [] }
    const result = { loss: 1, gradNorm: Number.POSITIVE_INFINITY }
    expect(observeStep(recent, result, 20)).toBe('the gradient norm is Infinity')
  })
})
