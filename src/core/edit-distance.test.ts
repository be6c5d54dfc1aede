import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { editDistance, edits } from './edit-distance.ts'

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

describe('edits', () => {
  it.each([
    // One word becomes two, another goes.
    [['meets', 'on', 'a'], ['meet', 's', 'on'], { replaced: 1, inserted: 1, deleted: 1 }],
    [['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], ['a', 'x'], { replaced: 1, inserted: 0, deleted: 6 }],
    [['a'], ['a'], { replaced: 0, inserted: 0, deleted: 0 }],
    [[], ['a'], { replaced: 0, inserted: 1, deleted: 0 }],
    // Not two replacements, which would keep nothing.
    [['a', 'b'], ['b', 'c'], { replaced: 0, inserted: 1, deleted: 1 }],
  ])('from %j to %j', (from, to, expected) => {
    expect(edits(from, to)).toEqual(expected)
  })

  it('never change or insert more than there is', () => {
    const text = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 9 })
    fc.assert(
      fc.property(text, text, (from, to) => {
        const { replaced, inserted, deleted } = edits(from, to)
        expect(Math.min(replaced, inserted, deleted)).toBeGreaterThanOrEqual(0)
        expect(from.length - replaced - deleted).toBe(to.length - replaced - inserted)
        expect(to.length - replaced - inserted).toBeGreaterThanOrEqual(0)
        const back = edits(to, from)
        expect(back).toEqual({ replaced, inserted: deleted, deleted: inserted })
      }),
      { seed: 1 },
    )
  })
})
