// What a server keeps of requests that are over: nothing.
import { ServerResponse } from 'node:http'
import { queryObjects } from 'node:v8'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunningServer } from '../../src/serve/index.ts'
import { testServer, tiny } from './models.ts'

let server: RunningServer
beforeAll(async () => {
  server = await testServer({ models: [{ name: 't', path: tiny }], safety: { filter: true } })
}, 60_000)
afterAll(() => server.close(), 60_000)

test.each([
  ['an answer', '/v1/completions', { prompt: 'the people', max_tokens: 2 }],
  ['a stream', '/v1/completions', { prompt: 'the people', max_tokens: 2, stream: true }],
  ['an error', '/v1/completions', { prompt: 1 }],
  ['a large body', '/tokenize', { prompt: 'the people '.repeat(4000) }],
])('requests are forgotten when they are answered: %s', async (_, path, body) => {
  const post = async () => {
    const answer = await fetch(server.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    await answer.text()
  }
  const count = () => queryObjects(ServerResponse, { format: 'count' })
  await post()
  const before = count()
  for (let i = 0; i < 30; i++) await post()
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(count()).toBeLessThan(before + 8)
})
