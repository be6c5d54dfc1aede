import fc from 'fast-check'
import { expect, test } from 'vitest'
import { diffWords } from './diff.ts'

test('words that changed', () => {
  expect(diffWords('We hold thees truths', 'We hold these truths.')).toEqual([
    { before: 'We hold ', after: 'We hold ', same: true },
    { before: 'thees', after: 'these', same: false },
    { before: ' truths', after: ' truths', same: true },
    { before: '', after: '.', same: false },
  ])
  expect(diffWords('a', 'a')).toEqual([{ before: 'a', after: 'a', same: true }])
  expect(diffWords('', '')).toEqual([])
})

test('both texts are in it, and what is the same is the same', () => {
  const words = fc.array(fc.constantFrom('a', 'b', ' ', '.', '\n', 'ä', '字')).map((parts) => parts.join(''))
  fc.assert(
    fc.property(words, words, (before, after) => {
      const changes = diffWords(before, after)
      expect(changes.map((change) => change.before).join('')).toBe(before)
      expect(changes.map((change) => change.after).join('')).toBe(after)
      for (const change of changes) expect(change.before === change.after).toBe(change.same)
    }),
    { seed: 1 },
  )
})
