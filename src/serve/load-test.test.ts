import { expect, test } from 'vitest'
import { loadFigure } from './load-figure.ts'
import { type LoadAnswer, percentiles, summarize } from './load-test.ts'

test('percentiles by nearest rank', () => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i)
  expect(percentiles(values)).toEqual({ p50: 50, p95: 95, p99: 99 })
  expect(percentiles([7])).toEqual({ p50: 7, p95: 7, p99: 7 })
})

const answer = (changes: Partial<LoadAnswer>): LoadAnswer => ({
  ...{ status: 200, error: undefined, text: 'a', firstToken: 1, total: 3, tokens: 5, forwards: 2 },
  ...changes,
})

test('answers that are not whole count, but not in the times', () => {
  const answers = [
    answer({}),
    answer({ status: 429, error: 'busy', total: 100 }),
    answer({ error: 'broke off', total: 100 }),
  ]
  const result = summarize(answers)
  expect(result).toMatchObject({ requests: 3, completed: 1, rejected: 1, failed: 1, tokens: 5, tokensPerForward: 2.5 })
  expect(result.perToken.p50).toBeCloseTo(0.5)
})

test('the figure has a line for every model', () => {
  const { tokens: _, ...figures } = summarize([answer({})])
  const result = (model: string, rate: number) => ({ model, mode: 'ar', rate, ...figures, tokensPerSecond: rate })
  const svg = loadFigure([result('one', 1), result('one', 2), result('two', 1), result('two', 2)])
  expect(svg).toContain('one (ar)')
  expect(svg).toContain('two (ar)')
  expect(svg).not.toContain('NaN')
})
