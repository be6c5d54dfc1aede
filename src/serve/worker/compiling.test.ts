import { afterAll, expect, test } from 'vitest'
import { UserError } from '../../core/types.ts'
import { type ConstraintSource, createVocabulary } from '../../decode/index.ts'
import { createCompiling } from './compiling.ts'

const tokens = [...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)), undefined]
const vocabulary = createVocabulary({ tokens, eosTokenIds: [256] })
/** How often a source was compiled: each needs the vocabulary before and, if nothing is wrong with it, after that. */
let needed = 0
const compiling = createCompiling(() => {
  needed++
  return vocabulary
})
afterAll(() => compiling.close())

const { signal } = new AbortController()
const regex = (pattern: string): ConstraintSource => ({ type: 'regex', pattern })
const failure = (source: ConstraintSource) => compiling.compile(source, 'a', signal).catch((error: unknown) => error)

test('each constraint is compiled once, and what was refused is refused again', async () => {
  const wrong = await failure(regex('('))
  expect(wrong).toBeInstanceOf(UserError)
  expect(await failure(regex('('))).toBe(wrong)
  const before = needed
  const same = await Promise.all(Array.from({ length: 4 }, () => compiling.compile(regex('a+'), 'a', signal)))
  expect(new Set(same).size).toBe(1)
  expect(needed).toBe(before + 2)
})

test('clients take turns, and one that leaves is not worked for', async () => {
  const order: string[] = []
  const leave = new AbortController()
  const ask = (client: string, pattern: string, of = signal) =>
    compiling.compile(regex(pattern), client, of).then(
      () => order.push(client),
      () => order.push(`${client} left`),
    )
  const before = needed
  const asked = ['1', '2', '3', '4'].map((name) => ask('greedy', name))
  asked.push(ask('gone', '5', leave.signal), ask('polite', '6'))
  leave.abort()
  await Promise.all(asked)
  expect(order.indexOf('gone left')).toBe(0)
  expect(order.indexOf('polite')).toBeLessThanOrEqual(3)
  expect(needed).toBe(before + 2 * 5)
})
