import { setMaxListeners } from 'node:events'
import { afterAll, expect, test } from 'vitest'
import { createJudging } from './judging.ts'

const settings = {
  ...{ filter: true, block: ['hate'], threshold: 0.5 },
  pii: { prompts: true, answers: true, kinds: ['email' as const, 'phone' as const], country: 'US' },
}
const judging = createJudging(settings, { queue: 4, queue_seconds: 60 })
afterAll(() => judging.close())
const { signal } = new AbortController()
// As many wait for it as are asked.
setMaxListeners(0, signal)
const long = 'hello '.repeat(1000)

test('a text is judged as it is beside the filter, and what is found comes with it', async () => {
  const { text, changed, findings } = await judging.judge('prompts', 'write to a@example.org', { client: 'a', signal })
  // The classifier has something to say of every text.
  const rules = findings.map(({ rule }) => rule).filter((rule) => rule !== 'classifier')
  expect({ text, changed, rules }).toEqual({
    ...{ text: 'write to [EMAIL]', changed: true, rules: ['pii:email'] },
  })
  const { scores } = await judging.judge('moderation', 'safe sex is taught', { client: 'a', signal })
  expect(scores).toBeInstanceOf(Map)
})

test('clients take turns; one that leaves is not worked for; one that floods is refused', async () => {
  const order: string[] = []
  const leave = new AbortController()
  const ask = (client: string, text: string, of = signal) =>
    judging.judge('prompts', text, { client, signal: of }).then(
      () => void order.push(client),
      (error: { code?: string }) => void order.push(`${client} ${error.code ?? 'left'}`),
    )
  const asked = Array.from({ length: 40 }, () => ask('greedy', long))
  asked.push(ask('gone', long, leave.signal), ask('polite', 'hello'))
  leave.abort()
  await Promise.all(asked)
  expect(order.filter((name) => name === 'greedy queue_full').length).toBeGreaterThan(5)
  expect(order.indexOf('gone left')).toBeLessThan(order.indexOf('greedy'))
  expect(order.indexOf('polite')).toBeLessThan(order.indexOf('greedy'))
})
