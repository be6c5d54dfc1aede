// Requests that are wrong in every way: none makes a 5xx, ends a process, or keeps memory. The server runs as people run it.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { command } from '../built.ts'
import { diffusionFolder, metric, post, type TestModel } from './models.ts'

let folder: TestModel
let child: ChildProcess
let url: string
let sent = 0

beforeAll(async () => {
  folder = await diffusionFolder()
  child = spawn(process.execPath, [command, 'serve', `d=${folder.path}`, '--port', '0', '--json', '--threads', '1'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, UNMASK_LOG_LEVEL: 'silent', UNMASK_LIMITS_BODY_SECONDS: '1', UNMASK_LIMITS_SECONDS: '2' },
  })
  const [line] = await once(child.stdout!, 'data')
  url = (JSON.parse(String(line)) as { url: string }).url
}, 60_000)
afterAll(async () => {
  child.kill('SIGTERM')
  await once(child, 'exit')
  await folder.remove()
}, 60_000)

/** What was sent must be answered with success or a complaint in OpenAI's shape. */
async function check(response: Response): Promise<void> {
  sent++
  const text = await response.text()
  expect(response.status, text).toBeLessThan(500)
  if (response.status < 400) return
  const { error } = JSON.parse(text) as { error: Record<string, unknown> }
  expect(Object.keys(error)).toEqual(['message', 'type', 'param', 'code'])
  expect(typeof error.message).toBe('string')
  expect(text).not.toContain(folder.path)
}

const valid: Record<string, Record<string, unknown>> = {
  '/v1/chat/completions': { messages: [{ role: 'user', content: 'a' }], max_tokens: 2, stream: false, n: 1 },
  '/v1/completions': { prompt: 'a', max_tokens: 2, stop: ['b'], logprobs: 1, echo: false, logit_bias: { 3: 1 } },
  '/v1/responses': {
    input: [{ role: 'user', content: 'a' }],
    max_output_tokens: 2,
    text: { format: { type: 'text' } },
  },
  '/v1/infill': { parts: ['ab', { mask: 2 }, 'c'], unmask: { unmasking: true }, stream: false },
  '/v1/rewrite': { input: 'abc', unmask: { editing_threshold: 0.9 }, stream: false },
  '/tokenize': { prompt: 'a', add_special_tokens: true },
  '/detokenize': { tokens: [1, 2] },
}
const extra = [
  'model',
  'seed',
  'temperature',
  'top_p',
  'top_k',
  'min_p',
  'repetition_penalty',
  'suffix',
  'tools',
  'tool_choice',
]
const more = ['response_format', 'stream_options', 'unmask', 'top_logprobs', 'instructions', 'functions', '__proto__']

const route = fc.constantFrom(...Object.keys(valid))
// Numbers that would make long answers are no malformed ones.
const value = fc
  .oneof(
    fc.jsonValue({ maxDepth: 4 }),
    fc.double(),
    fc.constantFrom(-1, 0, 1e308, 2 ** 53, -(2 ** 31), null, '', [], {}, [[]], [null], '\u0000', '\ud800', [{}], {
      a: {},
    }),
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.array(fc.integer({ min: -2, max: 300 }), { maxLength: 30 }),
  )
  .filter(
    (candidate) => typeof candidate !== 'number' || !Number.isInteger(candidate) || candidate < 3 || candidate > 4096,
  )

test('values of any kind in any field', async () => {
  await fc.assert(
    fc.asyncProperty(route, fc.nat(), value, async (path, pick, wrong) => {
      const body = valid[path]!
      const fields = [...Object.keys(body), ...extra, ...more]
      const field = fields[pick % fields.length]!
      await check(await post(`${url}${path}`, JSON.stringify({ ...body, [field]: wrong })))
    }),
    { numRuns: 1300, seed: 1 },
  )
})

test('fields inside fields', async () => {
  const message = fc.record(
    {
      role: fc.oneof(fc.constantFrom('user', 'assistant', 'tool', 'system', 'developer'), value),
      content: fc.oneof(value, fc.array(fc.record({ type: fc.constantFrom('text', 'image_url'), text: value }))),
      tool_calls: value,
      tool_call_id: value,
    },
    { requiredKeys: [] },
  )
  const tool = fc.record({
    type: fc.constantFrom('function', 'x'),
    function: fc.oneof(value, fc.record({ name: value })),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { maxLength: 4 }),
      fc.array(tool, { maxLength: 2 }),
      value,
      async (messages, tools, choice) => {
        const body = { messages, max_tokens: 1, tools, tool_choice: choice }
        await check(await post(`${url}/v1/chat/completions`, body))
        await check(
          await post(`${url}/v1/responses`, { input: messages, max_output_tokens: 1, tools, tool_choice: choice }),
        )
      },
    ),
    { numRuns: 200, seed: 2 },
  )
})

test('schemas of any kind', async () => {
  const word = fc.constantFrom(
    'type',
    'properties',
    'items',
    'anyOf',
    'enum',
    'const',
    'pattern',
    '$ref',
    'required',
    'minimum',
  )
  const schema = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      value,
      fc.constantFrom('string', 'object', '#', '(a+)+$', 'x'.repeat(200)),
      tie('some'),
    ),
    some: fc.dictionary(word, fc.oneof(tie('any'), fc.array(tie('any'), { maxLength: 3 })), { maxKeys: 4 }),
  })).some
  await fc.assert(
    fc.asyncProperty(schema, async (wrong) => {
      const format = { type: 'json_schema', json_schema: { name: 'x', schema: wrong } }
      const body = { messages: [{ role: 'user', content: 'a' }], max_tokens: 8, response_format: format }
      await check(await post(`${url}/v1/chat/completions`, body))
    }),
    { numRuns: 200, seed: 4 },
  )
})

test('bodies that are no JSON, no UTF-8, or nothing at all', async () => {
  await fc.assert(
    fc.asyncProperty(route, fc.uint8Array({ maxLength: 200 }), fc.nat(), async (path, noise, cut) => {
      const text = Buffer.from(JSON.stringify(valid[path]))
      const at = cut % text.length
      const spoiled = Buffer.concat([text.subarray(0, at), noise, text.subarray(at + 1)])
      for (const body of [noise, spoiled])
        await check(
          await fetch(`${url}${path}`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: Buffer.from(body),
          }),
        )
    }),
    { numRuns: 200, seed: 3 },
  )
})

test('addresses, methods and headers', async () => {
  const paths = [
    '/v1/models/../../../etc/passwd',
    '/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    '/v1/models/%00',
    '/%',
    '//',
    '/v1',
  ]
  const methods = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']
  for (const path of [...paths, ...Object.keys(valid)])
    for (const method of methods) await check(await fetch(`${url}${path}`, { method }))
  const types = ['text/plain', 'application/x-www-form-urlencoded', 'application/json; charset=utf-16', 'x', '']
  for (const type of types)
    await check(await post(`${url}/v1/completions`, '{"prompt":"a"}', { headers: { 'content-type': type } }))
  for (const encoding of ['gzip', 'br', 'x'])
    await check(await post(`${url}/tokenize`, '{"prompt":"a"}', { headers: { 'content-encoding': encoding } }))
})

test('huge and deep bodies', async () => {
  const huge = { prompt: 'a'.repeat(2 << 20) }
  const refused = await post(`${url}/v1/completions`, huge)
  expect(refused.status).toBe(413)
  await check(refused)
  for (const depth of [40, 10_000, 500_000]) {
    for (const body of [
      '['.repeat(depth),
      `{"prompt":${'['.repeat(depth)}${']'.repeat(depth)}}`,
      '{"a":'.repeat(depth),
    ]) {
      const response = await post(`${url}/v1/completions`, body.slice(0, 1 << 20))
      expect(response.status).toBe(400)
      await check(response)
    }
  }
  await check(await post(`${url}/v1/completions`, { prompt: Array.from({ length: 20_000 }, () => 'a') }))
  await check(await post(`${url}/v1/completions`, { prompt: Array.from({ length: 100_000 }, () => 1) }))
  await check(
    await post(`${url}/v1/completions`, {
      prompt: 'a',
      n: 16,
      logit_bias: Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [i, 1])),
    }),
  )
  const keys = Object.fromEntries(Array.from({ length: 30_000 }, (_, i) => [`key${i}`, i]))
  await check(await post(`${url}/v1/completions`, { prompt: 'a', max_tokens: 1, ...keys }))
})

/** Sends pieces of a request and returns what comes back until the connection ends. */
async function raw(pieces: string[]): Promise<string> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  let answer = ''
  socket.on('data', (chunk) => {
    answer += chunk
  })
  socket.on('error', () => {})
  const closed = once(socket, 'close')
  for (const piece of pieces) {
    socket.write(piece)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await closed
  sent++
  return answer
}

test('bodies that never arrive are not waited for', async () => {
  const head = 'POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'
  const answers = await Promise.all([
    raw([`${head}Content-Length: 1000\r\n\r\n`, '{"prompt"', ':"a"']),
    raw([`${head}Transfer-Encoding: chunked\r\n\r\n`, '5\r\n{"pro\r\n']),
    raw(['POST /v1/comp', 'letions HTTP/1.1\r\nHo']),
    raw(['\r\n\r\nGET\r\n\r\n']),
    raw([`${head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`, '0\r\n\r\n']),
  ])
  for (const answer of answers) expect(answer).toMatch(/^HTTP\/1\.1 4\d\d/)
})

test('after all that: more than 2000 requests, the same process, no more memory', async () => {
  expect(sent).toBeGreaterThan(2000)
  const health = await post(`${url}/v1/completions`, { prompt: 'a', max_tokens: 2 })
  expect(health.status).toBe(200)
  expect(await metric(url, 'unmask_model_restarts_total{model="d"}')).toBe(0)
  expect(await metric(url, 'unmask_running{model="d"}')).toBe(0)
  const before = await metric(url, 'unmask_resident_memory_bytes')
  for (let i = 0; i < 1000; i++) await check(await post(`${url}/v1/chat/completions`, { messages: [{ role: i }] }))
  const after = await metric(url, 'unmask_resident_memory_bytes')
  expect(after - before).toBeLessThan(64 << 20)
})
