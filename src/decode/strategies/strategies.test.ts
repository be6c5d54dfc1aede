// Every strategy against its definition, computed another way.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { strategyNames } from '../settings.ts'
import type { BlockState, Predictions, Strategy } from '../types.ts'
import { entropy } from './entropy-bound.ts'
import { createStrategy } from './index.ts'

interface Step {
  open?: number[]
  current?: (number | undefined)[]
  tokens?: number[]
  confidence: number[]
  logits?: Float32Array
  leading?: boolean
  size?: number
  step?: number
}

function state({ confidence, open, current, leading = true, size = 8, step = 0 }: Step): BlockState {
  const offsets = open ?? confidence.map((_, i) => i)
  return { step, size, open: offsets, current: current ?? offsets.map(() => undefined), leading }
}
const predictions = ({ tokens, confidence, logits }: Step): Predictions => ({
  tokens: tokens ?? confidence.map(() => 0),
  confidence,
  ...(logits ? { logits } : {}),
})
const decide = (strategy: Strategy, step: Step) => strategy.begin()(state(step), predictions(step))
const commit = (strategy: Strategy, step: Step) => decide(strategy, step).commit

const probability = fc.double({ min: 0.001, max: 0.999, noNaN: true })
const confidences = fc.array(probability, { minLength: 1, maxLength: 12 })

describe('fixed', () => {
  it('commits that many of the most confident, in a leading block', () => {
    const step = { confidence: [0.3, 0.9, 0.2, 0.9, 0.5] }
    expect(commit(createStrategy('fixed', {}), step)).toEqual([1])
    expect(commit(createStrategy('fixed', { tokensPerStep: 3 }), step)).toEqual([1, 3, 4])
    expect(commit(createStrategy('fixed', { tokensPerStep: 9 }), step)).toEqual([0, 1, 2, 3, 4])
    expect(commit(createStrategy('fixed', { tokensPerStep: 3 }), { ...step, leading: false })).toEqual([])
  })
})

describe('hierarchy', () => {
  it('commits the best of each run of masks, and all that is sure', () => {
    const strategy = createStrategy('hierarchy', { threshold: 0.9, lowThreshold: 0.4 })
    // Runs: 0 1 2 | 5 6 | 8.
    const open = [0, 1, 2, 5, 6, 8]
    expect(commit(strategy, { open, confidence: [0.5, 0.6, 0.3, 0.3, 0.2, 0.95] })).toEqual([1, 5])
    expect(commit(strategy, { open, confidence: [0.95, 0.6, 0.97, 0.3, 0.45, 0.1] })).toEqual([0, 2, 4])
    expect(commit(strategy, { open, confidence: [0.1, 0.2, 0.3, 0.35, 0.2, 0.3] })).toEqual([3])
    expect(commit(strategy, { open, confidence: [0.1, 0.2, 0.3, 0.35, 0.2, 0.3], leading: false })).toEqual([])
  })

  it('commits no fewer than the threshold alone', () => {
    fc.assert(
      fc.property(confidences, probability, probability, (confidence, threshold, lowThreshold) => {
        const all = commit(createStrategy('hierarchy', { threshold, lowThreshold }), { confidence })
        for (const i of commit(createStrategy('threshold', { threshold }), { confidence })) expect(all).toContain(i)
      }),
    )
  })
})

describe('factor', () => {
  it('commits the n most confident while (n + 1) (1 - confidence) stays below the factor', () => {
    fc.assert(
      fc.property(
        confidences,
        fc.double({ min: 0.01, max: 5, noNaN: true }),
        fc.boolean(),
        (confidence, factor, leading) => {
          const chosen = commit(createStrategy('factor', { factor }), { confidence, leading })
          const sorted = [...confidence].sort((a, b) => b - a)
          let n = 0
          while (n < sorted.length && (n + 2) * (1 - sorted[n]) < factor) n++
          expect(chosen).toHaveLength(leading ? Math.max(1, n) : n)
          const least = Math.min(...chosen.map((i) => confidence[i]))
          for (const [i, p] of confidence.entries()) if (!chosen.includes(i)) expect(p).toBeLessThanOrEqual(least)
        },
      ),
    )
  })
})

describe('entropy_bound', () => {
  const row = fc.array(fc.double({ min: -6, max: 6, noNaN: true }), { minLength: 5, maxLength: 5 })
  it('commits those of lowest entropy whose entropies sum to less than the bound', () => {
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 8 }), probability, (rows, entropyBound) => {
        const logits = Float32Array.from(rows.flat())
        const step = { confidence: rows.map(() => 0.5), logits }
        const chosen = commit(createStrategy('entropy_bound', { entropyBound }), step)
        const entropies = rows.map((_, i) => {
          const values = [...logits.subarray(5 * i, 5 * i + 5)].map(Math.exp)
          const sum = values.reduce((a, b) => a + b)
          return -values.map((value) => (value / sum) * Math.log(value / sum)).reduce((a, b) => a + b)
        })
        for (const [i, value] of entropies.entries())
          expect(entropy(logits.subarray(5 * i, 5 * i + 5))).toBeCloseTo(value, 4)
        const total = chosen.map((i) => entropies[i]).reduce((a, b) => a + b)
        if (chosen.length > 1) expect(total).toBeLessThan(entropyBound + 1e-4)
        const rest = entropies.filter((_, i) => !chosen.includes(i))
        for (const i of chosen) for (const other of rest) expect(entropies[i]).toBeLessThanOrEqual(other + 1e-4)
        if (rest.length > 0) expect(total + Math.min(...rest)).toBeGreaterThan(entropyBound - 1e-4)
      }),
    )
  })

  it('has no entropy where one token is certain', () => {
    expect(entropy(Float32Array.of(Number.NEGATIVE_INFINITY, 3, Number.NEGATIVE_INFINITY))).toBe(0)
  })
})

describe('credit', () => {
  it('lifts a token that is predicted again over the threshold', () => {
    const strategy = createStrategy('credit', { threshold: 0.75 })
    const decide = strategy.begin()
    // Token 1 has probability 0.7 in each step, at both positions; the first leads in confidence.
    const logits = Float32Array.from([0, Math.log(0.7 / 0.3), 0, Math.log(0.69 / 0.31)])
    const step = { open: [3, 4], confidence: [0.7, 0.69], tokens: [1, 1], logits }
    const expected = (p: number, credit: number) => {
      const lifted = p * (1 + credit) ** 0.7
      return lifted / (lifted + 1 - p)
    }
    // dInfer: C is decayed, then p^gamma is added, then logits + alpha log(1 + C) are the new logits.
    const first = 0.7 ** 0.2
    expect(expected(0.69, 0.69 ** 0.2)).toBeGreaterThan(0.75)
    expect(decide(state({ ...step, leading: false }), predictions(step)).commit).toEqual([0, 1])
    const strict = createStrategy('credit', {
      threshold: (expected(0.7, first) + expected(0.7, 0.8 * first + first)) / 2,
    })
    const again = strict.begin()
    expect(again(state({ ...step, leading: false }), predictions(step)).commit).toEqual([])
    expect(again(state({ ...step, leading: false }), predictions(step)).commit).toEqual([0, 1])
  })

  it('without weight is the threshold rule', () => {
    const hundredth = fc.integer({ min: 1, max: 99 })
    fc.assert(
      fc.property(fc.uniqueArray(hundredth, { minLength: 1, maxLength: 12 }), hundredth, (hundredths, limit) => {
        const confidence = hundredths.map((value) => value / 100)
        const threshold = (limit + 0.5) / 100
        const logits = Float32Array.from(confidence.flatMap((p) => [Math.log(1 - p), Math.log(p)]))
        const step = { confidence, tokens: confidence.map(() => 1), logits }
        const chosen = decide(createStrategy('credit', { threshold, creditAlpha: 0 }), step)
        expect(chosen.commit).toEqual(commit(createStrategy('threshold', { threshold }), step))
      }),
    )
  })
})

describe('edit', () => {
  const options = { threshold: 0.7, editingThreshold: 0.5, maxPostSteps: 2 }
  it('fills masks and edits tokens in one step', () => {
    const step = {
      confidence: [0.8, 0.6, 0.6, 0.9, 0.4],
      tokens: [1, 2, 3, 4, 5],
      current: [undefined, undefined, 9, 4, 9],
    }
    expect(decide(createStrategy('edit', options), step)).toEqual({ commit: [0, 2], again: true })
    const none = { ...step, confidence: [0.3, 0.6, 0.2, 0.9, 0.4] }
    expect(decide(createStrategy('edit', options), none)).toEqual({ commit: [1], again: true })
    expect(decide(createStrategy('edit', options), { ...none, leading: false })).toEqual({ commit: [], again: true })
  })

  it('goes on without masks until nothing changes, or its steps are used up', () => {
    const decide = createStrategy('edit', options).begin()
    const step = { confidence: [0.8, 0.8], tokens: [1, 2], current: [1, 3] }
    expect(decide(state(step), predictions(step))).toEqual({ commit: [1], again: true })
    expect(decide(state(step), predictions(step))).toEqual({ commit: [1], again: false })
    const settled = { ...step, current: [1, 2] }
    expect(createStrategy('edit', options).begin()(state(settled), predictions(settled))).toEqual({
      commit: [],
      again: false,
    })
  })

  it('with a threshold of 0 edits wherever the model differs, as SGLang does', () => {
    const step = { confidence: [0.01, 0.02], tokens: [1, 2], current: [4, 2] }
    expect(commit(createStrategy('edit', { ...options, editingThreshold: 0 }), step)).toEqual([0])
  })
})

describe('soft', () => {
  const strategy = createStrategy('soft', { threshold: 0.5 })

  it('fills masks from the left while they are sure enough, else the first alone, and follows every prediction', () => {
    const current = [undefined, 4, undefined, undefined, 5]
    const tokens = [1, 4, 2, 3, 9]
    const sure = decide(strategy, { current, tokens, confidence: [0.8, 0.2, 0.5, 0.4, 0.1] })
    expect(sure).toEqual({
      ...{ commit: [0, 2, 4], again: true },
      soft: new Map([
        [0, 0.8],
        [1, 0.2],
        [2, 0.5],
        [4, 0.1],
      ]),
    })
    const unsure = { current, tokens, confidence: [0.4, 0.2, 0.9, 0.9, 0.1] }
    expect(commit(strategy, unsure)).toEqual([0, 4])
    expect(commit(strategy, { ...unsure, leading: false })).toEqual([4])
  })

  it('ends with a block that is sure, that does not change, or that had as many steps as positions', () => {
    const step = { current: [1, 2], tokens: [1, 3], confidence: [0.9, 0.95] }
    expect(decide(strategy, step)).toEqual({ commit: [1] })
    expect(decide(strategy, { ...step, confidence: [0.9, 0.89] })).toMatchObject({ again: true })
    expect(decide(strategy, { ...step, tokens: [1, 2], confidence: [0.1, 0.1] })).toEqual({ commit: [] })
    expect(decide(strategy, { ...step, confidence: [0.1, 0.1], size: 4, step: 3 })).toEqual({ commit: [1] })
    // Not while there are masks.
    const strict = createStrategy('soft', { threshold: 0.99 })
    const left = { current: [undefined, undefined], tokens: [1, 2], confidence: [0.95, 0.95] }
    expect(decide(strict, left)).toEqual({ commit: [0], again: true, soft: new Map([[0, 0.95]]) })
  })
})

describe('any strategy', () => {
  it('commits a mask at least where the block leads, in ascending order, and names every setting that it has', () => {
    fc.assert(
      fc.property(fc.constantFrom(...strategyNames), confidences, (name, confidence) => {
        const logits = Float32Array.from(confidence.flatMap((p) => [Math.log(1 - p), Math.log(p)]))
        const step = { confidence, tokens: confidence.map((p) => (p > 0.5 ? 1 : 0)), logits }
        const chosen = commit(createStrategy(name, {}), step)
        expect(chosen.length).toBeGreaterThan(0)
        expect(chosen).toEqual([...new Set(chosen)].sort((a, b) => a - b))
      }),
    )
  })
})
