// Distributions against Hugging Face's order of filters written plainly, and draws against their distribution.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { random } from '../core/random.ts'
import {
  adjustLogits,
  distribution,
  largest,
  logProbabilities,
  pick,
  type SamplingOptions,
  uniformAt,
} from './sampling.ts'

const logits = fc
  .array(fc.integer({ min: -40, max: 40 }), { minLength: 1, maxLength: 300 })
  .map((values) => Float32Array.from(values, (value, i) => value / 8 + (i % 7) / 64))

/** Filters one after the other, each on what the one before left. */
function plainly(values: Float32Array, { temperature = 0, topK = 0, topP = 1, minP = 0 }: SamplingOptions) {
  let kept = [...values].map((value, token) => ({ token, weight: Math.exp(value / temperature) }))
  kept.sort((a, b) => b.weight - a.weight || a.token - b.token)
  if (topK > 0) kept = kept.slice(0, topK)
  const total = kept.reduce((sum, { weight }) => sum + weight, 0)
  if (topP < 1) {
    let sum = 0
    const before = kept.map(({ weight }) => {
      const value = sum
      sum += weight / total
      return value
    })
    kept = kept.filter((_, i) => before[i] < topP - 1e-12)
  }
  kept = kept.filter(({ weight }) => weight >= minP * kept[0].weight)
  const rest = kept.reduce((sum, { weight }) => sum + weight, 0)
  return new Map(kept.map(({ token, weight }) => [token, weight / rest]))
}

describe('the distribution', () => {
  const options = fc.record({
    temperature: fc.constantFrom(0.5, 1, 1.7),
    topK: fc.constantFrom(0, 1, 3, 50),
    topP: fc.constantFrom(1, 0.95, 0.5, 0.1),
    minP: fc.constantFrom(0, 0.05, 0.5),
  })
  it('is that of the filters one after the other', () => {
    fc.assert(
      fc.property(logits, options, (values, options) => {
        const { tokens, probabilities } = distribution(values, options)
        const expected = plainly(values, options)
        // A probability that falls on a limit may fall on either side of it.
        if (tokens.length !== expected.size) {
          expect(Math.abs(tokens.length - expected.size)).toBe(1)
          return
        }
        for (const [i, token] of tokens.entries()) expect(probabilities[i]).toBeCloseTo(expected.get(token) ?? -1, 6)
        expect(probabilities.reduce((a, b) => a + b)).toBeCloseTo(1)
      }),
    )
  })

  it('without temperature is the most probable token, the first of equals', () => {
    expect(distribution(Float32Array.of(1, 4, 4, 2), {})).toEqual({ tokens: [1], probabilities: Float64Array.of(1) })
  })

  it('never has a token that is forbidden', () => {
    const values = Float32Array.of(1, Number.NEGATIVE_INFINITY, 0.5)
    expect(distribution(values, { temperature: 5 }).tokens).toEqual([0, 2])
  })
})

describe('draws', () => {
  it('follow the distribution (G-test)', () => {
    const values = random(3).fillNormal(new Float32Array(40))
    const wanted = distribution(values, { temperature: 0.8, topP: 0.9 })
    const counts = new Map<number, number>()
    const draws = 20_000
    for (let i = 0; i < draws; i++) {
      const token = pick(wanted, uniformAt(11, i % 100, Math.floor(i / 100)))
      counts.set(token, (counts.get(token) ?? 0) + 1)
    }
    let g = 0
    for (const [i, token] of wanted.tokens.entries()) {
      const observed = counts.get(token) ?? 0
      if (observed > 0) g += 2 * observed * Math.log(observed / (draws * wanted.probabilities[i]))
    }
    expect([...counts.values()].reduce((a, b) => a + b)).toBe(draws)
    // Chi-square with k degrees of freedom: mean k, deviation sqrt(2 k); five deviations.
    const freedom = wanted.tokens.length - 1
    expect(g).toBeLessThan(freedom + 5 * Math.sqrt(2 * freedom))
  })

  it('at the ends of the unit interval are the first and the last token', () => {
    const wanted = { tokens: [7, 3, 5], probabilities: Float64Array.of(0.5, 0.3, 0.2) }
    expect(pick(wanted, 0)).toBe(7)
    expect(pick(wanted, 0.5)).toBe(3)
    expect(pick(wanted, 1 - 2 ** -53)).toBe(5)
  })
})

it('the repetition penalty pushes tokens of the text down, whatever their sign', () => {
  const values = Float32Array.of(2, -2, 1)
  adjustLogits(values, { repetitionPenalty: 2, logitBias: new Map([[2, 0.5]]) }, [0, 1, 0])
  expect([...values]).toEqual([1, -4, 1.5])
})

it('log-probabilities are those of the softmax', () => {
  fc.assert(
    fc.property(logits, fc.constantFrom(0.5, 1, 2), (values, scale) => {
      const of = logProbabilities(values, scale)
      expect([...values].reduce((sum, _, token) => sum + Math.exp(of(token)), 0)).toBeCloseTo(1)
      if (values.length > 1) expect(of(1) - of(0)).toBeCloseTo(scale * (values[1] - values[0]), 4)
    }),
  )
})

it('the largest values are found in order', () => {
  fc.assert(
    fc.property(logits, fc.integer({ min: 1, max: 40 }), (values, count) => {
      const all = [...values.keys()].sort((a, b) => values[b] - values[a] || a - b)
      expect(largest(values, count)).toEqual(all.slice(0, count))
    }),
  )
})
