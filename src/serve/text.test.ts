import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createAnswerText } from './text.ts'

// A byte-level tokenizer: one token per byte.
const tokenizer = { decode: (ids: ArrayLike<number>) => new TextDecoder().decode(Uint8Array.from(ids)) }
const bytes = (text: string) => [...new TextEncoder().encode(text)]

function run(text: string, stop: string[] = []) {
  const stream = createAnswerText(tokenizer, stop)
  const pieces: string[] = []
  for (const id of bytes(text)) {
    const { text: piece, stopped } = stream.push(id)
    pieces.push(piece)
    if (stopped) return { pieces, stopped: true }
  }
  pieces.push(stream.end())
  return { pieces, stopped: false }
}

test('the pieces are the text, and none ends inside a character', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      const { pieces } = run(text)
      expect(pieces.join('')).toBe(text)
      for (const piece of pieces) expect(piece).not.toMatch(/[\ud800-\udbff]$/)
    }),
  )
})

test('a stop string ends the text before it, wherever tokens are cut', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('a', 'b', 'é') }),
      fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'é'), minLength: 1, maxLength: 3 }), { maxLength: 3 }),
      (text, stop) => {
        const { pieces, stopped } = run(text, stop)
        const found = stop.map((s) => text.indexOf(s)).filter((i) => i !== -1)
        expect(stopped).toBe(found.length > 0)
        // The stop string that is complete first ends the text; of two that end together the one that begins first.
        const joined = pieces.join('')
        expect(text.startsWith(joined)).toBe(true)
        if (!stopped) expect(joined).toBe(text)
        else expect(stop.some((s) => text.startsWith(joined + s))).toBe(true)
        for (const s of stop) expect(joined.includes(s)).toBe(false)
      },
    ),
  )
})

test('bytes that are no text come out at the end', () => {
  const stream = createAnswerText(tokenizer)
  expect(stream.push(0xe2).text).toBe('')
  expect(stream.push(0x82).text).toBe('')
  expect(stream.end()).toBe('\ufffd')
})
