import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { calibrationBins } from './calibration-error.ts'
import { diversity } from './diversity.ts'
import { holm, mcnemar, pairedComparison, percentile } from './paired.ts'
import { passAtK } from './pass-at-k.ts'

// scripts/check_tasks.py compares these with scipy, nltk and the reference implementation of HumanEval.

describe('pairedComparison', () => {
  it('tells a difference from chance', () => {
    const a = Array.from({ length: 100 }, (_, i) => Number(i % 2 === 0))
    const worse = a.map((value, i) => (i < 30 ? 0 : value))
    const result = pairedComparison(a, worse)
    expect(result).toMatchObject({ rows: 100, a: 0.5, b: 0.35, difference: expect.closeTo(-0.15), test: 'McNemar' })
    // 15 rows lost, none gained: 2 * 0.5^15.
    expect(result.p).toBeCloseTo(2 ** -14, 12)
    expect(result.low).toBeLessThan(-0.15)
    expect(result.high).toBeLessThan(0)
    expect(pairedComparison(a, a)).toMatchObject({ difference: 0, low: 0, high: 0, p: 1 })
  })

  it('weighs rows, and tests what is not 0 or 1 by the bootstrap', () => {
    const result = pairedComparison([1, 2], [2, 4], { weights: [1, 3] })
    expect(result).toMatchObject({ a: 0.75, b: 1.5, difference: 0.75, test: 'bootstrap' })
    expect(() => pairedComparison([], [])).toThrow(/cannot pair/)
    expect(() => pairedComparison([1], [1, 2])).toThrow(/cannot pair/)
  })

  it('has an interval around the difference', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 1 }), fc.integer({ min: 0, max: 1 })), {
          minLength: 1,
          maxLength: 30,
        }),
        (rows) => {
          const result = pairedComparison(
            rows.map(([a]) => a),
            rows.map(([, b]) => b),
            { resamples: 200 },
          )
          expect(result.low).toBeLessThanOrEqual(result.high)
          expect(result.p).toBeGreaterThan(0)
          expect(result.p).toBeLessThanOrEqual(1)
        },
      ),
      { numRuns: 50 },
    )
  })
})

it('McNemar is exact for few rows and many', () => {
  expect(mcnemar(0, 0)).toBe(1)
  expect(mcnemar(1, 5)).toBeCloseTo(0.21875, 12)
  expect(mcnemar(600, 600)).toBe(1)
  expect(mcnemar(500, 600)).toBeCloseTo(mcnemar(600, 500), 12)
})

it('Holm corrects by rank', () => {
  expect(holm([0.01, 0.04, 0.03, 0.005]).map((p) => Number(p.toFixed(6)))).toEqual([0.03, 0.06, 0.06, 0.02])
  expect(holm([])).toEqual([])
})

it('percentiles lie between neighbours', () => {
  expect(percentile([1, 2, 3, 4], 0.5)).toBe(2.5)
  expect(percentile([7], 0.9)).toBe(7)
})

it('pass@k is the share of draws with a right answer', () => {
  expect(passAtK(1, 1, 1)).toBe(1)
  expect(passAtK(10, 3, 1)).toBeCloseTo(0.3, 12)
  expect(passAtK(4, 1, 2)).toBeCloseTo(0.5, 12)
  expect(passAtK(4, 3, 2)).toBe(1)
  expect(() => passAtK(3, 1, 4)).toThrow(/pass@4 needs at least 4 answers/)
})

it('diversity falls where texts repeat', () => {
  expect(diversity(['a b c', 'a b c'])).toMatchObject({ distinct1: 0.5, distinct2: 0.5 })
  expect(diversity(['a b c d e', 'a b c d e']).selfBleu).toBeCloseTo(1, 12)
  expect(diversity(['a b c d e', 'f g h i j']).selfBleu).toBe(0)
  expect(diversity(['a']).selfBleu).toBeNaN()
})

it('calibration compares probability with how often it is right', () => {
  const bins = calibrationBins()
  for (let i = 0; i < 10; i++) bins.add(0.75, i < 5)
  expect(bins.error()).toBeCloseTo(0.25, 12)
  bins.add(1, true)
  expect(bins.error()).toBeCloseTo(2.5 / 11, 12)
})
