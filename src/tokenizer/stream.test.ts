import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createTextStream } from './stream.ts'

// A token per byte, and one special token without text: every character but ASCII is spread over tokens.
const decode = (ids: ArrayLike<number>) =>
  new TextDecoder().decode(Uint8Array.from(Array.from(ids).filter((id) => id < 256)))

it('pieces add up to the whole, and no character is split', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 30 }), fc.array(fc.nat({ max: 9 })), (text, sizes) => {
      const bytes = [...new TextEncoder().encode(text)].flatMap((byte, i) => (i % 5 === 2 ? [256, byte] : [byte]))
      const stream = createTextStream({ decode })
      const pieces: string[] = []
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const size = 1 + (sizes[i % Math.max(1, sizes.length)] ?? 0)
        pieces.push(stream.push(bytes.slice(at, at + size)))
        at += size
      }
      pieces.push(stream.end())
      expect(pieces.join('')).toBe(text)
      for (const piece of pieces) expect(piece).not.toMatch(/\ufffd/)
    }),
  )
})

it('a character that never became whole comes at the end', () => {
  const stream = createTextStream({ decode })
  expect(stream.push([65, 0xe2, 0x82])).toBe('A')
  expect(stream.end()).toBe('\ufffd')
})
