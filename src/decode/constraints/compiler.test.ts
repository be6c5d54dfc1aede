import { expect, test } from 'vitest'
import { createConstraintCompiler } from './compiler.ts'
import { type ConstraintSource, createVocabulary } from './index.ts'

test('a constraint is compiled once, and what was refused is refused again without compiling', () => {
  const tokens = [...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)), undefined]
  const compile = createConstraintCompiler(() => createVocabulary({ tokens, eosTokenIds: [256] }))
  const regex = (pattern: string): ConstraintSource => ({ type: 'regex', pattern })
  const failure = (source: ConstraintSource): unknown => {
    try {
      return compile(source)
    } catch (error) {
      return error
    }
  }
  const wrong = failure(regex('('))
  expect(wrong).toBeInstanceOf(Error)
  expect(failure(regex('('))).toBe(wrong)
  expect(compile(regex('a'))).toBe(compile(regex('a')))
  expect(compile(regex('a'))).not.toBe(compile(regex('b')))
  for (let i = 0; i < 16; i++) compile(regex(String(i)))
  expect(failure(regex('('))).not.toBe(wrong)
})
