import fc from 'fast-check'
import { expect, test } from 'vitest'
import { addHole, followEdit, toParts } from './holes.ts'

const text = 'one two three four'
const hole = (start: number, end: number) => ({ start, end, tokens: 1 })
const shown = (of: string, holes: readonly { start: number; end: number }[]) =>
  holes.map(({ start, end }) => of.slice(start, end))

test('a hole takes in the space before it and what it meets', () => {
  const once = addHole([], text, hole(4, 7))
  expect(shown(text, once)).toEqual([' two'])
  expect(shown(text, addHole(once, text, hole(14, 18)))).toEqual([' two', ' four'])
  expect(shown(text, addHole(once, text, hole(5, 13)))).toEqual([' two three'])
})

test.each([
  ['one TWO three four', [' TWO']],
  ['zero one two three four', [' two']],
  ['one two, three four', [' two']],
  ['one tw', [' tw']],
  ['one', []],
  ['on three four', []],
  ['one two', [' two']],
])('follows an edit to %j', (after, expected) => {
  const holes = [hole(3, 7)]
  expect(shown(after, followEdit(holes, text, after))).toEqual(expected)
})

test('parts give back the text around the holes', () => {
  expect(toParts(text, [hole(0, 3), hole(7, 13)])).toEqual([{ mask: 1 }, ' two', { mask: 1 }, ' four'])
  expect(toParts('', [])).toEqual([])
})

test('holes stay apart, in order and inside the text, whatever is typed', () => {
  const edit = fc.record({ at: fc.nat(), remove: fc.nat(8), insert: fc.string({ maxLength: 5 }) })
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(17), fc.nat(6)), { maxLength: 4 }), fc.array(edit), (selections, edits) => {
      let now = text
      let holes = selections.reduce(
        (found, [start, length]) => addHole(found, now, hole(start, Math.min(now.length, start + length + 1))),
        [] as ReturnType<typeof addHole>,
      )
      for (const { at, remove, insert } of edits) {
        const start = at % (now.length + 1)
        const next = now.slice(0, start) + insert + now.slice(start + remove)
        holes = followEdit(holes, now, next)
        now = next
        let last = 0
        for (const { start, end } of holes) {
          expect(start).toBeGreaterThanOrEqual(last)
          expect(end).toBeGreaterThan(start)
          last = end
        }
        expect(last).toBeLessThanOrEqual(now.length)
      }
    }),
    { seed: 1 },
  )
})
