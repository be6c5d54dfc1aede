import { expect, test } from 'vitest'
import { remembering } from './remember.ts'

test('what is asked for again is not made again, failures neither, until others came', () => {
  const made: string[] = []
  const make = remembering(
    (text: string) => {
      made.push(text)
      if (text === 'bad') throw new Error('bad')
      return text.length
    },
    (text) => text,
    2,
  )
  expect([make('a'), make('a')]).toEqual([1, 1])
  expect(() => make('bad')).toThrow('bad')
  expect(() => make('bad')).toThrow('bad')
  expect(made).toEqual(['a', 'bad'])
  expect([make('abc'), make('a')]).toEqual([3, 1])
  expect(made).toEqual(['a', 'bad', 'abc', 'a'])
})
