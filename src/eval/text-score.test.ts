import { describe, expect, it } from 'vitest'
import { editDistance } from '../core/edit-distance.ts'
import { random } from '../core/random.ts'
import { characterErrorRate, exactMatches } from './text-score.ts'

describe('editDistance', () => {
  it.each([
    ['kitten', 'sitting', 3],
    ['', 'abc', 3],
    ['abc', 'abc', 0],
    ['flaw', 'lawn', 2],
    ['😊a', 'a', 1],
  ])('of %s and %s', (a, b, expected) => {
    expect(editDistance(a, b)).toBe(expected)
    expect(editDistance(b, a)).toBe(expected)
  })
})

describe('scores', () => {
  const pairs = [
    { text: 'the cat', reference: 'the cat' },
    { text: 'a dg', reference: 'a dog' },
    { text: 'bird', reference: 'birds fly' },
  ]
  it('sum edits over characters', () => {
    expect(characterErrorRate(pairs).value).toBeCloseTo((0 + 1 + 5) / (7 + 5 + 9))
    expect(exactMatches(pairs).value).toBeCloseTo(1 / 3)
    // The usual standard error of a share, with n - 1.
    expect(exactMatches(pairs).stderr).toBeCloseTo(Math.sqrt(((1 / 3) * (2 / 3)) / 2))
  })

  it('have a standard error as large as the spread over samples', () => {
    const draw = random(3)
    const sample = () =>
      Array.from({ length: 100 }, () => {
        const length = 5 + (draw.uint32() % 30)
        const wrong = draw.uint32() % (length / 2)
        return { reference: 'a'.repeat(length), text: 'b'.repeat(wrong) + 'a'.repeat(length - wrong) }
      })
    const estimates = Array.from({ length: 300 }, () => characterErrorRate(sample()))
    const mean = estimates.reduce((total, { value }) => total + value, 0) / 300
    const spread = Math.sqrt(estimates.reduce((total, { value }) => total + (value - mean) ** 2, 0) / 299)
    const told = estimates.reduce((total, { stderr }) => total + stderr, 0) / 300
    expect(told / spread).toBeGreaterThan(0.9)
    expect(told / spread).toBeLessThan(1.1)
  })
})
