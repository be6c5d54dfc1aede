// Safety as clients meet it: the real server, the real model, the official client.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { stringify } from 'yaml'
import type { RunningServer, ServeConfigInput } from '../../src/serve/index.ts'
import { diffusionFolder, metric, post, type TestModel, testServer, tiny } from './models.ts'

let folder: TestModel
let work: string
beforeAll(async () => {
  folder = await diffusionFolder()
  work = await mkdtemp(join(tmpdir(), 'unmask-safety-'))
})
afterAll(async () => {
  await folder.remove()
  await rm(work, { recursive: true })
})

async function withServer<T>(
  safety: NonNullable<ServeConfigInput['safety']>,
  body: (server: RunningServer, client: OpenAI) => Promise<T>,
): Promise<T> {
  const models = [
    { name: 'tiny', path: tiny, preload: false },
    { name: 'diffusion', path: folder.path, preload: false },
  ]
  const server = await testServer({ models, safety })
  try {
    return await body(server, new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 }))
  } finally {
    await server.close()
  }
}

async function rulesFile(name: string, rules: object[]): Promise<string> {
  const path = join(work, name)
  await writeFile(path, stringify({ rules }))
  return path
}

const asked = { prompt: 'the people of', max_tokens: 60, logit_bias: { 256: -100, 258: -100 } }
const names = ['tiny', 'diffusion'] as const

async function stream(server: RunningServer, body: object) {
  const response = await post(`${server.url}/v1/completions`, { ...body, stream: true })
  const events = (await response.text())
    .split('\n\n')
    .map((event) => event.replace(/^data: /, ''))
    .filter((event) => event !== '' && event !== '[DONE]')
    .map((event) => JSON.parse(event))
  const choices = events.flatMap((event) => event.choices)
  return {
    raw: JSON.stringify(choices),
    text: choices.map((choice) => choice.text).join(''),
    finish: choices.at(-1).finish_reason,
    unmasked: choices.flatMap((choice) => choice.unmask?.tokens ?? []) as { position: number; text: string }[],
  }
}

const quoted = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')

test('a match in an answer is never streamed, wherever blocks end', async () => {
  const free = await withServer({}, async (server) => {
    const texts = []
    for (const model of names) texts.push((await stream(server, { ...asked, model })).text)
    return texts
  })
  for (const [i, model] of names.entries()) {
    const text = free[i]!
    expect(text.length).toBeGreaterThan(40)
    const place = 20 + 7 * i
    const wanted = text.slice(place, place + 9)
    const first = text.indexOf(wanted)
    const rules = await rulesFile('block.yaml', [
      { id: 'seen', category: 'own', action: 'block', case_sensitive: true, pattern: quoted(wanted) },
    ])
    await withServer({ rules }, async (server) => {
      const body = { ...asked, model, unmask: { unmasking: true }, logprobs: 1 }
      const streamed = await stream(server, body)
      expect(streamed.text).toBe(text.slice(0, first))
      expect(streamed.finish).toBe('content_filter')
      // Nor do tokens tell what comes behind.
      const told = [...streamed.unmasked].sort((a, b) => a.position - b.position).map((token) => token.text)
      expect(text.slice(0, first).startsWith(told.join(''))).toBe(true)
      const whole = await (await post(`${server.url}/v1/completions`, body)).json()
      expect((whole as { choices: object[] }).choices[0]).toMatchObject({
        text: text.slice(0, first),
        finish_reason: 'content_filter',
      })
      expect(await metric(server.url, 'unmask_safety_total{direction="answer",action="block"}')).toBe(2)
    })
    const redact = await rulesFile('redact.yaml', [
      { id: 'seen', category: 'own', action: 'redact', case_sensitive: true, pattern: quoted(wanted) },
    ])
    await withServer({ rules: redact }, async (server) => {
      const { text: redacted, finish } = await stream(server, { ...asked, model })
      expect(redacted).toBe(text.replaceAll(wanted, '[OWN]'))
      expect(finish).toBe('length')
    })
  }
}, 120_000)

test('a filter that finds nothing changes nothing, unmasking events included', async () => {
  const body = { ...asked, model: 'diffusion', unmask: { unmasking: true }, logprobs: 2 }
  const plain = await withServer({}, (server) => stream(server, body))
  const rules = await rulesFile('none.yaml', [{ id: 'x', category: 'own', action: 'block', words: ['qqqqqq'] }])
  const judged = await withServer({ rules }, (server) => stream(server, body))
  expect(judged.text).toBe(plain.text)
  expect(judged.unmasked.length).toBe(plain.unmasked.length)
})

test('a blocked prompt is refused in the shape of each API, and no model sees it', async () => {
  const rules = await rulesFile('titan.yaml', [
    { id: 'titan', category: 'secrets', action: 'block', words: ['Project Titan'] },
  ])
  await withServer({ rules }, async (server, client) => {
    const messages = [{ role: 'user' as const, content: 'tell me of project  titan' }]
    const model = 'diffusion'
    const chat = await client.chat.completions.create({ model, messages })
    expect(chat.choices[0]).toMatchObject({ finish_reason: 'content_filter', message: { content: null } })
    expect(chat.choices[0]!.message.refusal).toMatch(/filter/)
    let refusal = ''
    let finish: string | null = null
    for await (const { choices } of await client.chat.completions.create({ model, messages, stream: true })) {
      refusal += choices[0]!.delta.refusal ?? ''
      finish = choices[0]!.finish_reason ?? finish
    }
    expect({ refusal, finish }).toEqual({ refusal: chat.choices[0]!.message.refusal, finish: 'content_filter' })
    const response = await client.responses.create({ model, input: messages[0]!.content })
    expect(response).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'content_filter' } })
    expect(response.output).toMatchObject([{ type: 'message', content: [{ type: 'refusal' }] }])
    const completion = await client.completions.create({ model, prompt: 'Project Titan is', echo: true, max_tokens: 4 })
    expect(completion.choices).toMatchObject([{ text: '', finish_reason: 'content_filter' }])
    const { tokens } = (await (await post(`${server.url}/tokenize`, { prompt: 'Project Titan is' })).json()) as {
      tokens: number[]
    }
    const ids = await client.completions.create({ model, prompt: tokens, max_tokens: 4 })
    expect(ids.choices[0]!.finish_reason).toBe('content_filter')
    const call = {
      id: 'c',
      type: 'function' as const,
      function: { name: 'look', arguments: '{"for":"Project Titan"}' },
    }
    const called = await client.chat.completions.create({
      model,
      messages: [
        { role: 'user', content: 'look' },
        { role: 'assistant', content: null, tool_calls: [call] },
        { role: 'tool', tool_call_id: 'c', content: 'nothing' },
      ],
    })
    expect(called.choices[0]!.finish_reason).toBe('content_filter')
    expect(await metric(server.url, 'unmask_prompt_tokens_total{model="diffusion"}')).toBe(0)
  })
})

test('personal data does not reach the model', async () => {
  await withServer({ pii: {} }, async (_, client) => {
    const prompt = ['mail anne@example.org', 'the card 4111 1111 1111 1111', 'nothing here']
    const { choices } = await client.completions.create({ model: 'tiny', prompt, echo: true, max_tokens: 0 })
    expect(choices.map(({ text }) => text)).toEqual(['mail [EMAIL]', 'the card [CREDIT_CARD]', 'nothing here'])
  })
})

test('judges texts as OpenAI does, without any configuration', async () => {
  await withServer({}, async (_, client) => {
    const { results } = await client.moderations.create({
      input: ['a lovely day', 'i will kill you', 'you worthless piece of sh1t'],
    })
    expect(results.map(({ flagged }) => flagged)).toEqual([false, true, true])
    expect(results[1]!.categories['harassment/threatening']).toBe(true)
    expect(results[1]!.category_scores['harassment/threatening']).toBeGreaterThan(0.5)
    expect(results[0]!.category_scores.violence).toBe(0)
    const parts = await client.moderations.create({ input: [{ type: 'text', text: 'i will kill you' }] })
    expect(parts.results).toHaveLength(1)
  })
})

test('asks another endpoint, and fails closed or open as told', async () => {
  const rules = await rulesFile('river.yaml', [{ id: 'river', category: 'own', action: 'flag', words: ['river'] }])
  await withServer({ rules }, async (judge) => {
    const url = `${judge.url}/v1/moderations`
    await withServer({ endpoint: { url } }, async (server, client) => {
      const { choices } = await client.completions.create({ model: 'tiny', prompt: 'the river of', max_tokens: 4 })
      expect(choices[0]!.finish_reason).toBe('content_filter')
      const { text, finish } = await stream(server, { ...asked, model: 'diffusion' })
      expect({ finish, length: text.length > 40 }).toEqual({ finish: 'length', length: true })
    })
  })
  // One that takes connections and never answers, and one whose answer is none.
  const silent = createServer(() => {})
  const wrong = createServer((_, response) => response.end('{"results":[]}'))
  for (const endpoint of [silent, wrong]) {
    await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/v1/moderations`
    for (const on_failure of ['block', 'allow'] as const)
      await withServer({ endpoint: { url, timeout_seconds: 0.2, on_failure } }, async (_, client) => {
        const { choices } = await client.completions.create({ model: 'tiny', prompt: 'the river of', max_tokens: 4 })
        expect(choices[0]!.finish_reason).toBe(on_failure === 'block' ? 'content_filter' : 'length')
      })
    endpoint.closeAllConnections()
    await new Promise((resolve) => endpoint.close(resolve))
  }
}, 120_000)

test('the audit log tells what was done, and no text', async () => {
  const file = join(work, 'audit.jsonl')
  const rules = await rulesFile('flag.yaml', [
    { id: 'flag', category: 'own', action: 'flag', words: ['people'] },
    { id: 'stop', category: 'own', action: 'block', words: ['forbidden'] },
  ])
  await withServer({ rules, audit: { file } }, async (_, client) => {
    await client.completions.create({ model: 'tiny', prompt: 'the people of', max_tokens: 4 })
    await client.completions.create({ model: 'tiny', prompt: 'the forbidden people', max_tokens: 4 })
    await client.completions.create({ model: 'tiny', prompt: 'the forbidden people', max_tokens: 4 })
  })
  const text = await readFile(file, 'utf8')
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(lines.map(({ direction, action, rules: ids }) => [direction, action, ids])).toEqual([
    ['prompt', 'flag', ['flag']],
    ['answer', 'pass', []],
    ['prompt', 'block', ['stop']],
    ['prompt', 'block', ['stop']],
  ])
  expect(lines[2].text_hash).toBe(lines[3].text_hash)
  expect(lines[2].request).not.toBe(lines[3].request)
  expect(text).not.toMatch(/people"|forbidden p|127\.0\.0\.1/)
})

test('wrong rules end the start, saying which', async () => {
  const rules = await rulesFile('wrong.yaml', [{ id: 'a', category: 'own', action: 'block', pattern: '(a)\\1' }])
  await expect(withServer({ rules }, async () => {})).rejects.toThrow(/rule a: .*refers back/)
  const both = await rulesFile('both.yaml', [{ id: 'b', category: 'own', action: 'stop', words: ['x'] }])
  await expect(withServer({ rules: both }, async () => {})).rejects.toThrow(/rules\.0\.action/)
})

test('holes and rewritten texts are judged as other answers are', async () => {
  const infill = {
    parts: ['The people', { mask: 6 }, ' the state.'],
    ...{ logit_bias: { 256: -100, 258: -100 }, unmask: { unmasking: true } },
  }
  type Shown = { position: number; text: string }
  /** What the events of tokens say in order. */
  const events = ({ unmask }: { unmask: { tokens: Shown[] } }) =>
    [...unmask.tokens]
      .sort((a, b) => a.position - b.position)
      .map(({ text }) => text)
      .join('')
  const ask = async (server: RunningServer, body: object) => {
    const response = await post(`${server.url}/v1/infill`, { model: 'diffusion', ...body })
    expect(response.status).toBe(200)
    return (await response.json()) as {
      text: string
      holes?: string[]
      finish_reason: string
      unmask: { tokens: Shown[] }
    }
  }
  const free = await withServer({}, (server) => ask(server, infill))
  const hole = free.holes![0]!
  expect(free.finish_reason).toBe('stop')
  expect(events(free)).toContain(hole.trim())
  const nothing = await rulesFile('holes-none.yaml', [{ id: 'x', category: 'own', pattern: 'qqqqqq', action: 'block' }])
  await withServer({ rules: nothing }, async (server) => expect(events(await ask(server, infill))).toBe(events(free)))
  for (const action of ['block', 'redact']) {
    const rules = await rulesFile(`holes-${action}.yaml`, [
      { id: 'hole', category: 'own', pattern: quoted(hole), action },
    ])
    await withServer({ rules }, async (server) => {
      const judged = await ask(server, infill)
      expect(JSON.stringify(judged)).not.toContain(hole)
      expect(events(judged)).toBe('')
      expect(judged.finish_reason).toBe(action === 'block' ? 'content_filter' : 'stop')
      // The text that the client gives is judged too.
      const given = await ask(server, { ...infill, parts: [hole, { mask: 2 }] })
      expect(JSON.stringify(given)).not.toContain(hole)
    })
  }
})
