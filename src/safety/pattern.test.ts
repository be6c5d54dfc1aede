import fc from 'fast-check'
import { expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { compilePattern, quoteWords } from './pattern.ts'

/** Patterns over a and b, with everything that they can be made of. */
const source = fc.letrec<{ pattern: string; atom: string }>((tie) => ({
  atom: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '\\w', 'ab'),
    tie('pattern').map((inner) => `(?:${inner})`),
  ),
  pattern: fc
    .array(fc.tuple(tie('atom'), fc.constantFrom('', '', '?', '*', '+', '{2}', '{1,3}', '*?', '|', '\\b', '$')), {
      minLength: 1,
      maxLength: 4,
    })
    .map((parts) => parts.map(([atom, after]) => `${/[?*+{]/.test(after) ? `(?:${atom})` : atom}${after}`).join('')),
})).pattern

test('what begins before the open place is final, whatever comes', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', ' ', 'c'), maxLength: 12 })
  let compiled = 0
  fc.assert(
    fc.property(source, text, text, (pattern, first, more) => {
      let made: ReturnType<typeof compilePattern>
      try {
        made = compilePattern(pattern)
      } catch (error) {
        expect(error).toBeInstanceOf(UserError)
        return
      }
      compiled++
      const open = made.open(first, 0)
      const final = (whole: string) => made.matches(whole, 0).filter(({ start }) => start < open)
      expect(final(first + more)).toEqual(final(first))
    }),
    { numRuns: 1000, seed: 7 },
  )
  expect(compiled).toBeGreaterThan(300)
})

test('finds matches where the engine of JavaScript does', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', ' '), maxLength: 16 })
  fc.assert(
    fc.property(source, text, (pattern, whole) => {
      let made: ReturnType<typeof compilePattern>
      try {
        made = compilePattern(pattern)
      } catch {
        return
      }
      const wanted = new RegExp(pattern, 'u').exec(whole)
      const found = made.matches(whole, 0)[0]
      if (wanted?.[0] === '') return
      // Where a match ends may differ: JavaScript refuses empty rounds of a repetition.
      expect(found?.start).toBe(wanted?.index)
    }),
    { numRuns: 1000, seed: 7 },
  )
})

test('says where a match could be under way', () => {
  const open = (pattern: string, text: string) => compilePattern(pattern).open(text, 0)
  expect(open('secret', 'a sec')).toBe(2)
  expect(open('secret', 'a sect')).toBe(6)
  expect(open('\\d{4}(?:-\\d{4}){3}', 'card 1234-5678-')).toBe(5)
  expect(open('\\d{4}(?:-\\d{4}){3}', 'card 1234-567x')).toBe(14)
  // The word may still go on.
  expect(open('\\bass\\b', 'the ass')).toBe(4)
  expect(compilePattern('\\bass\\b').open('the ass ', 0)).toBe(8)
})

test('patterns that other engines hang on take no longer than others', () => {
  const pattern = compilePattern('(?:a+)+b|(?:a|aa)*c|(?:x{1,60}x{1,60})y')
  const text = 'a'.repeat(5000) + 'x'.repeat(5000)
  expect(pattern.matches(text, 0)).toEqual([])
  expect(pattern.open(text, 0)).toBe(text.length - 120)
})

test('refuses what it cannot do, saying why', () => {
  expect(() => compilePattern('(?=a)b')).toThrow(/looks around/)
  expect(() => compilePattern('(a)\\1')).toThrow(/refers back/)
  expect(() => compilePattern('a*')).toThrow(/empty text/)
  expect(() => compilePattern('(')).toThrow(UserError)
  expect(() => compilePattern('(?:a{1000}){1000}')).toThrow(UserError)
  expect(() => compilePattern('a'.repeat(3000))).toThrow(/longer than/)
})

test('words are taken as they are', () => {
  const words = compilePattern(quoteWords('C++ (beta)  a/b-c'))
  expect(words.matches('c++ (beta)\n a/b-c', 0)).toEqual([{ start: 0, end: 17 }])
  expect(compilePattern('a/b').matches('xa/b', 0)).toEqual([{ start: 1, end: 4 }])
})
