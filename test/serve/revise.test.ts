// Filling holes and mending tokens over HTTP.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunningServer } from '../../src/serve/index.ts'
import { diffusionFolder, modelFolder, post, type TestModel, testServer, tiny } from './models.ts'

let folder: TestModel
let rewriting: TestModel
let server: RunningServer
beforeAll(async () => {
  folder = await diffusionFolder()
  rewriting = await modelFolder({ rewrite_prompt: 'reverse({text})=' })
  server = await testServer({
    models: [
      { name: 'd', path: folder.path },
      { name: 'ar', path: tiny },
      { name: 'rewriting', path: rewriting.path },
    ],
    limits: { output_tokens: 64 },
  })
})
afterAll(async () => {
  await server.close()
  await folder.remove()
  await rewriting.remove()
})

interface Revised {
  text: string
  holes?: string[]
  usage: { prompt_tokens: number; completion_tokens: number; forwards: number }
  unmask: { layout: { text: string; hole?: number }[]; tokens: { position: number; text: string; step: number }[] }
  error: { message: string; param: string | null }
}

async function ask(path: string, body: Record<string, unknown>): Promise<{ status: number; body: Revised }> {
  const response = await post(`${server.url}${path}`, body)
  return { status: response.status, body: (await response.json()) as Revised }
}

/** Events of a stream, without the last. */
async function stream(path: string, body: Record<string, unknown>): Promise<Partial<Revised>[]> {
  const response = await post(`${server.url}${path}`, { ...body, stream: true })
  const data = (await response.text()).trim().split('\n\n')
  expect(data.pop()).toBe('data: [DONE]')
  return data.map((event) => JSON.parse(event.slice('data: '.length)) as Partial<Revised>)
}

const infill = { parts: ['The people', { mask: 5 }, ' the ', { mask: 3 }, '.'], unmask: { unmasking: true } }

test('fills every hole and leaves the rest as it is', async () => {
  const { status, body } = await ask('/v1/infill', infill)
  expect(status).toBe(200)
  const [first, second] = body.holes!
  expect(body.text).toBe(`The people${first} the ${second}.`)
  expect(body.usage).toMatchObject({ prompt_tokens: 16, completion_tokens: 8 })
  expect(body.unmask.layout.map(({ hole }) => hole ?? '-').join('')).toBe(`${'-'.repeat(10)}00000${'-'.repeat(5)}111-`)
  // Tokens are bytes here: each position of a hole is decided once.
  const decided = body.unmask.tokens.map(({ position }) => position).sort((a, b) => a - b)
  expect(decided).toEqual([10, 11, 12, 13, 14, 20, 21, 22])
})

test('names of special tokens are text, and none is written into a hole', async () => {
  // Even where the model would rather end the text, or mark something.
  const logit_bias = { 256: 100, 257: 100, 258: 100, 259: 100 }
  const { status, body } = await ask('/v1/infill', { parts: ['a<|mask|>', { mask: 4 }, '<|im_end|>b'], logit_bias })
  expect(status).toBe(200)
  expect(body.text).toBe(`a<|mask|>${body.holes![0]}<|im_end|>b`)
  expect(body.holes![0]).toHaveLength(4)
  expect(body.usage).toMatchObject({ prompt_tokens: 'a<|mask|><|im_end|>b'.length, completion_tokens: 4 })
})

test('streams the same, in order', async () => {
  const { body } = await ask('/v1/infill', infill)
  const events = await stream('/v1/infill', infill)
  expect(events.map(({ text }) => text).join('')).toBe(body.text)
  expect(events[0]!.unmask).toEqual({ layout: body.unmask.layout, tokens: [] })
  expect(events.flatMap(({ unmask }) => unmask?.tokens ?? [])).toEqual(body.unmask.tokens)
  expect(events.at(-1)).toMatchObject({ holes: body.holes, usage: body.usage })
})

test('rewrites tokens of which the model is surer, and no others', async () => {
  const input = 'The people of the United States'
  const unchanged = await ask('/v1/rewrite', { input, unmask: { editing_threshold: 1 } })
  expect(unchanged.body).toMatchObject({ text: input, usage: { completion_tokens: 0 } })
  const { body } = await ask('/v1/rewrite', { input, unmask: { unmasking: true, editing_threshold: 0.3 } })
  const tokens = body.unmask.layout.map(({ text }) => text)
  expect(tokens.join('')).toBe(input)
  for (const { position, text } of body.unmask.tokens) tokens[position] = text
  expect(body.text).toBe(tokens.join(''))
  expect(body.unmask.tokens.length).toBeGreaterThan(0)
  const changed = tokens.filter((text, i) => text !== body.unmask.layout[i]!.text)
  expect(body.usage.completion_tokens).toBe(changed.length)
})

test.each([
  ['/v1/infill', { parts: ['a', { mask: 2 }], model: 'ar' }, 'model'],
  ['/v1/rewrite', { input: 'a b', model: 'ar' }, 'model'],
  ['/v1/infill', { parts: ['a'] }, 'parts'],
  ['/v1/infill', { parts: ['a', { mask: 65 }] }, 'parts'],
  ['/v1/infill', { parts: ['a', { mask: 300 }, 'b', { mask: 300 }] }, 'parts'],
  ['/v1/infill', { parts: ['a', { mask: 0 }] }, 'parts[1].mask'],
  ['/v1/infill', { parts: [{ mask: 2 }, 'a'] }, 'parts'],
  ['/v1/infill', { parts: ['a'.repeat(2100), { mask: 2 }] }, 'parts'],
  ['/v1/infill', { ...infill, stop: 'a' }, 'stop'],
  ['/v1/infill', { ...infill, unmask: { block_size: 0 } }, 'unmask.block_size'],
  ['/v1/rewrite', { input: '' }, 'input'],
  ['/v1/rewrite', { input: 'a' }, 'input'],
])('%s %j is refused by %s', async (path, body, param) => {
  const answer = await ask(path, body)
  expect([answer.status, answer.body.error.param]).toEqual([400, param])
})

test('settings of block decoding change how many forwards an answer takes', async () => {
  const forwards = async (unmask: object) => {
    const body = { prompt: 'The people', max_tokens: 16, unmask, logit_bias: { 256: -100, 258: -100 } }
    return (await ask('/v1/completions', body)).body.usage.forwards
  }
  expect(await forwards({ strategy: 'fixed', tokens_per_step: 1, block_size: 8 })).toBeGreaterThanOrEqual(16)
  expect(await forwards({ strategy: 'fixed', tokens_per_step: 8, block_size: 8 })).toBeLessThanOrEqual(4)
})

test('a model that names how it is asked writes the text anew', async () => {
  const { status, body } = await ask('/v1/rewrite', { model: 'rewriting', input: 'stone' })
  expect(status).toBe(200)
  expect(body.text).toBe('enots')
  // The prompt is reverse(stone)=, a byte a token; the answer ends with an end token.
  expect(body.usage).toMatchObject({ prompt_tokens: 15, completion_tokens: 6 })
  const parts = await stream('/v1/rewrite', { model: 'rewriting', input: 'stone' })
  expect(parts.map(({ text }) => text ?? '').join('')).toBe('enots')
  const refused = await ask('/v1/infill', { model: 'rewriting', parts: ['a', { mask: 2 }] })
  expect(refused.status).toBe(400)
  const unread = await ask('/v1/rewrite', { model: 'rewriting', input: 'x', unmask: { editing_threshold: 0.5 } })
  expect(unread).toMatchObject({
    status: 400,
    body: { error: { message: expect.stringContaining('editing_threshold') } },
  })
})
