import { describe, expect, it } from 'vitest'
import { random } from '../core/random.ts'
import { ratioDifference, ratioOfSums } from './estimate.ts'

const draw = random(3)

/** Rows of uneven size, of which a second measurement is 10 % worse on average and shares the rows' luck. */
function rows(count: number) {
  const wholes = Array.from({ length: count }, () => 5 + draw.integer(30))
  const parts = wholes.map((whole) => draw.uniform() * whole)
  const worse = parts.map((part, i) => 0.9 * part + 0.02 * wholes[i]! * draw.uniform())
  return { a: { parts, wholes }, b: { parts: worse, wholes } }
}

/** The mean of the standard errors that were told, over the spread of the values. */
function toldOverSpread(estimates: readonly { value: number; stderr: number }[]): number {
  const mean = estimates.reduce((total, { value }) => total + value, 0) / estimates.length
  const variance = estimates.reduce((total, { value }) => total + (value - mean) ** 2, 0) / (estimates.length - 1)
  return estimates.reduce((total, { stderr }) => total + stderr, 0) / estimates.length / Math.sqrt(variance)
}

describe('standard errors', () => {
  const samples = Array.from({ length: 600 }, () => rows(100))

  it('of ratios are as large as the spread over samples', () => {
    const ratio = toldOverSpread(samples.map(({ a }) => ratioOfSums(a.parts, a.wholes)))
    expect(ratio).toBeGreaterThan(0.9)
    expect(ratio).toBeLessThan(1.1)
  })

  it('of differences too, and are smaller than those of independent ratios', () => {
    const ratio = toldOverSpread(samples.map(({ a, b }) => ratioDifference(a, b)))
    expect(ratio).toBeGreaterThan(0.9)
    expect(ratio).toBeLessThan(1.1)
    const [{ a, b }] = samples as [(typeof samples)[number]]
    expect(ratioDifference(a, b).stderr).toBeLessThan(ratioOfSums(a.parts, a.wholes).stderr / 2)
  })

  it('are those of a mean where all rows weigh the same', () => {
    // Mean 1/3; the variance of 1, 0, 0 with n - 1 is 1/3.
    const { value, stderr } = ratioOfSums([1, 0, 0], [1, 1, 1])
    expect(value).toBeCloseTo(1 / 3)
    expect(stderr).toBeCloseTo(Math.sqrt(1 / 3 / 3))
    expect(ratioOfSums([1], [1])).toEqual({ value: 1, stderr: Number.NaN })
  })
})
