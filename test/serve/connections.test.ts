// Clients that leave connections with requests open, or end one direction of them.
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunningServer } from '../../src/serve/index.ts'
import { metric, testServer, tiny, until } from './models.ts'

let server: RunningServer
beforeAll(async () => {
  server = await testServer({ models: [{ name: 't', path: tiny }] })
}, 60_000)
afterAll(() => server.close(), 60_000)

const request = (body: object) => {
  const text = JSON.stringify(body)
  return `POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`
}
const long = { prompt: 'the people of', max_tokens: 1900, logit_bias: { 256: -100, 258: -100 } }
const running = () => metric(server.url, 'unmask_running{model="t"}')

test('what was sent behind other requests waits for them, and ends with the connection', async () => {
  const client = connect(Number(new URL(server.url).port), '127.0.0.1')
  client.write(request(long).repeat(6))
  await until(async () => (await running()) === 1)
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(await running()).toBe(1)
  client.destroy()
  await until(async () => (await running()) === 0)
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(await running()).toBe(0)
})

test.each([false, true])('a client that ends its own direction gets its answer (streamed: %s)', async (stream) => {
  const client = connect(Number(new URL(server.url).port), '127.0.0.1')
  let answer = ''
  client.on('data', (chunk) => {
    answer += chunk
  })
  client.end(request({ ...long, max_tokens: 300, stream }))
  await once(client, 'close')
  expect(answer).toContain(stream ? '[DONE]' : '"finish_reason":"length"')
})
