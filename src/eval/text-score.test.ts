import { describe, expect, it } from 'vitest'
import { characterErrorRate, exactMatches } from './text-score.ts'

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

  // Python: jiwer.cer(references, texts), jiwer 4.0.0.
  const byJiwer = [
    {
      text: 'Tliey had been strippcd of all moral auth0ri- ty',
      reference: 'They had been stripped of all moral authority',
    },
    { text: 'mere intelligence however is not enough', reference: 'Mere intelligence, however, is not enough.' },
    { text: "oS,we've decidedd to  cut", reference: "So, we've decided to cut down" },
    { text: '', reference: 'lost' },
    { text: 'naïve 😊 café', reference: 'naive café 😊' },
    { text: 'same', reference: 'same' },
  ]
  it('are those of jiwer', () => {
    expect(characterErrorRate(byJiwer).value).toBeCloseTo(0.21323529411764705, 12)
    const each = byJiwer.map((pair) => characterErrorRate([pair]).value)
    const expected = [0.13333333333333333, 0.09523809523809523, 0.3448275862068966, 1, 0.4166666666666667, 0]
    for (const [i, value] of expected.entries()) expect(each[i]).toBeCloseTo(value, 12)
  })
})
