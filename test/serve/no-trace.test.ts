// What a filter blocks or replaces stands in no field of any answer: texts, holes, token events, log-probabilities, arguments.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { random } from '../../src/core/random.ts'
import { parseConfig, type RunningServer } from '../../src/serve/index.ts'
import { createLog } from '../../src/serve/log.ts'
import { createMetrics } from '../../src/serve/metrics.ts'
import { createSafety } from '../../src/serve/safety.ts'
import { diffusionFolder, post, type TestModel, testServer } from './models.ts'

let folder: TestModel
let work: string
beforeAll(async () => {
  folder = await diffusionFolder()
  work = await mkdtemp(join(tmpdir(), 'unmask-trace-'))
})
afterAll(async () => {
  await folder.remove()
  await rm(work, { recursive: true })
})

/** What is forbidden; prompts hold none of it. */
const FORBIDDEN = /[a-z]{3}/i
const rulesOf = async (action: 'block' | 'redact') => {
  const rules = join(work, `${action}.yaml`)
  const rule = { id: 'letters', category: 'secrets', pattern: '[a-z]{3}', action, replacement: '#' }
  await writeFile(rules, JSON.stringify({ rules: [rule] }))
  return rules
}

/** Requests of every route that generates, drawn from a seed. */
function requestOf(seed: number): [path: string, body: Record<string, unknown>] {
  const draw = random(7, seed)
  const flag = () => draw.integer(2) === 1
  const prompt = ['1 2 3', '= ', '42 (', '? 1', 'ab ', 'x = '][draw.integer(6)]!
  const common = {
    temperature: 0.5 + draw.integer(3) / 2,
    seed,
    stream: flag(),
    unmask: { unmasking: flag() },
    logit_bias: { 256: -100, 258: -100 },
  }
  const messages = [{ role: 'user', content: prompt }]
  const most = 8 + draw.integer(24)
  const parameters = { type: 'object', properties: { a: { type: 'string' } }, required: ['a'] }
  switch (draw.integer(6)) {
    case 0:
      return ['/v1/completions', { ...common, prompt, max_tokens: most, n: 2, ...(flag() ? { logprobs: 2 } : {}) }]
    case 1:
      return ['/v1/completions', { ...common, stream: false, prompt, max_tokens: most, echo: true, logprobs: 2 }]
    case 2:
      return ['/v1/chat/completions', { ...common, messages, max_tokens: most, n: 2, logprobs: true, top_logprobs: 1 }]
    case 3: {
      const tools = [{ type: 'function', function: { name: 'f1', parameters } }]
      return ['/v1/chat/completions', { ...common, messages, max_tokens: 80, tools, tool_choice: 'required' }]
    }
    case 4:
      return ['/v1/responses', { ...common, input: prompt, max_output_tokens: most }]
    default:
      return [
        draw.integer(4) === 0 ? '/v1/rewrite' : '/v1/infill',
        { ...common, input: `${prompt} 1 2`, parts: [prompt, { mask: 4 + draw.integer(20) }, ' 1.', { mask: 3 }] },
      ]
  }
}

// biome-ignore lint/suspicious/noExplicitAny: answers of six routes
type Json = Record<string, any>

/** All that a client can put together from an answer. */
function seen(text: string, streamed: boolean): string[] {
  const parts: Json[] = streamed
    ? text
        .split('\n')
        .filter((line) => line.startsWith('data: {'))
        .map((line) => JSON.parse(line.slice(6)))
    : [JSON.parse(text)]
  const found = new Map<string, string>()
  const add = (key: string, more: unknown) => found.set(key, (found.get(key) ?? '') + (more ?? ''))
  const tokens = (key: string, unmask: Json | undefined) => {
    const told: string[] = []
    for (const { position, text: token } of unmask?.tokens ?? []) told[position] = token
    add(key, Array.from(told, (token) => token ?? ' ').join(''))
  }
  for (const part of parts) {
    for (const choice of (part.choices ?? [part]) as Json[]) {
      const at = `${choice.index ?? 0}`
      const said = choice.message ?? choice.delta ?? {}
      add(
        `${at} text`,
        [said.content, choice.text, part.delta].find((one) => typeof one === 'string'),
      )
      for (const call of said.tool_calls ?? []) add(`${at} call`, call.function.arguments)
      tokens(`${at} events ${streamed ? parts.indexOf(part) : ''}`, choice.unmask ?? (part.tokens ? part : undefined))
      const { logprobs } = choice
      add(`${at} logprobs`, (logprobs?.tokens ?? (logprobs?.content ?? []).map((entry: Json) => entry.token)).join(''))
      add(`${at} bytes`, String.fromCharCode(...(logprobs?.content ?? []).flatMap((entry: Json) => entry.bytes ?? [])))
      for (const [i, hole] of ((choice.holes ?? []) as string[]).entries()) add(`${at} hole ${i}`, hole)
    }
    const output = (part.response?.output ?? part.output ?? []) as Json[]
    for (const item of output)
      found.set('output', item.arguments ?? (item.content ?? []).map((content: Json) => content.text).join(''))
  }
  if (streamed) {
    // Events of a stream make one text, too.
    const all: string[] = []
    for (const part of parts)
      for (const choice of (part.choices ?? [part]) as Json[])
        for (const { position, text: token } of (choice.unmask ?? part).tokens ?? [])
          if ((choice.index ?? 0) === 0) all[position] = token
    found.set('all events', Array.from(all, (token) => token ?? ' ').join(''))
  }
  return [...found.values()]
}

test.each(['block', 'redact'] as const)(
  'what a rule would %s is in no field of any answer',
  async (action) => {
    const server: RunningServer = await testServer({
      models: [{ name: 'd', path: folder.path }],
      safety: { rules: await rulesOf(action) },
    })
    let acted = 0
    try {
      for (let seed = 0; seed < 40; seed++) {
        const [path, body] = requestOf(seed)
        const answer = await post(`${server.url}${path}`, body)
        const text = await answer.text()
        expect(answer.status, text).toBe(200)
        if (/content_filter|#/.test(text)) acted++
        for (const field of seen(text, body.stream === true))
          expect(field, `${seed} ${path} ${JSON.stringify(body)}: ${text.slice(0, 2000)}`).not.toMatch(FORBIDDEN)
      }
    } finally {
      await server.close()
    }
    expect(acted).toBeGreaterThan(10)
  },
  300_000,
)

test('arguments of a call are judged as the client gets them', async () => {
  const log = createLog('silent')
  const config = parseConfig({ models: [{ path: 'a' }], safety: { rules: await rulesOf('block'), pii: {} } })
  const safety = await createSafety(config, { log, metrics: createMetrics(), env: {} })
  const asker = { request: '1', client: 'a', model: 'm' }
  const told = (given: unknown) => safety.call(JSON.stringify(given), asker, new AbortController().signal)
  expect(await told({ a: 4111111111111111 })).toEqual({ text: '{"a":[CREDIT_CARD]}', blocked: false })
  expect(await told({ a: 'f"o\no' })).toMatchObject({ blocked: false })
  for (const hidden of ['abc', '\u0061bc', ['abc'], { abc: 1 }])
    expect(await told({ a: hidden })).toMatchObject({ blocked: true })
  await safety.close()
})
