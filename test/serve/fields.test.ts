// Every route that generates checks every field of a body by the same schema, and obeys no other.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { decodingFields } from '../../src/serve/decoding.ts'
import type { RunningServer } from '../../src/serve/index.ts'
import { diffusionFolder, post, type TestModel, testServer } from './models.ts'

let folder: TestModel
let server: RunningServer
beforeAll(async () => {
  folder = await diffusionFolder()
  server = await testServer({ models: [{ name: 'd', path: folder.path }] })
}, 60_000)
afterAll(async () => {
  await server.close()
  await folder.remove()
}, 60_000)

const routes: Record<string, object> = {
  '/v1/chat/completions': { messages: [{ role: 'user', content: 'a' }], max_tokens: 6 },
  '/v1/completions': { prompt: 'a', max_tokens: 6 },
  '/v1/responses': { input: 'a', max_output_tokens: 6 },
  '/v1/infill': { parts: ['a', { mask: 6 }] },
  '/v1/rewrite': { input: 'abcdef' },
}

const wrong: Record<keyof typeof decodingFields, unknown[]> = {
  temperature: [-1, 3, 'x', {}],
  top_p: [-0.1, 1.1, 'x'],
  top_k: ['many', -5, 2.5],
  min_p: ['x', 7],
  repetition_penalty: [0, -3, 'x', 11],
  seed: ['abc', {}, 1.5, 2 ** 65],
  logit_bias: [
    'zz',
    { AI: -100 },
    { 104: 'x' },
    { 999999: 5 },
    Object.fromEntries([...Array(1100).keys()].map((i) => [i, 1])),
  ],
  frequency_penalty: [1, 'x'],
  presence_penalty: [-1],
  unmask: [{ unmaskign: true }, { threshold: 2 }, { strategy: 'x' }, { block_size: 0 }, 'x'],
}

describe.each(Object.keys(routes))('%s', (route) => {
  const send = async (fields: object) => {
    const response = await post(`${server.url}${route}`, { ...routes[route], temperature: 1, ...fields })
    const { error, ...answer } = (await response.json()) as { error?: { param: string; message: string } }
    return { status: response.status, error, answer }
  }

  test.each(Object.keys(decodingFields))('%s is checked', async (field) => {
    for (const value of wrong[field as keyof typeof wrong]) {
      const { status, error } = await send({ [field]: value })
      expect([status, error?.param?.split('.')[0]], JSON.stringify(value)).toEqual([400, field])
      expect(error!.message).toContain(field)
    }
  })

  test('seeds have 64 bits', async () => {
    for (const seed of ['9223372036854775807', '-9223372036854775808', '-1', '4294967296']) {
      const body = JSON.stringify({ ...routes[route], temperature: 1 }).replace(/}$/, `,"seed":${seed}}`)
      expect((await post(`${server.url}${route}`, body)).status, seed).toBe(200)
    }
  })

  test('what the engine refuses is said in the names of the API', async () => {
    const { status, error } = await send({ unmask: { strategy: 'fixed', low_threshold: 0.5 } })
    expect(status).toBe(400)
    expect(error!.message).toContain('low_threshold')
    expect(error!.message).not.toContain('lowThreshold')
  })

  test('fields that no schema knows are not obeyed', async () => {
    const text = async (fields: object) =>
      JSON.stringify((await send({ seed: 1, ...fields })).answer).replaceAll(
        /"(id|item_id|created\w*)":("[^"]*"|\d+)/g,
        '',
      )
    const unknown = { topK: 1, sampling: { topK: 1 }, guided_regex: 'x', unmasking: true, __proto__: { top_k: 1 } }
    expect(await text(unknown)).toBe(await text({}))
  })
})

test('what is wrong is said in plain words, by the field', async () => {
  const route = '/v1/chat/completions'
  const message = async (fields: object) => {
    const response = await post(`${server.url}${route}`, { ...routes[route], ...fields })
    return ((await response.json()) as { error: { message: string } }).error.message
  }
  expect(await message({ messages: [{ role: 'user', content: 5 }] })).toBe(
    'messages[0].content: expected a text or a list of parts of text, not 5',
  )
  expect(await message({ messages: [] })).toBe('messages: must not be empty')
  expect(await message({ messages: undefined })).toBe('messages: is required')
  expect(await message({ max_tokens: 1.5 })).toBe('max_tokens: expected a whole number, not 1.5')
  expect(await message({ temperature: 'hot' })).toBe('temperature: expected a number, not "hot"')
  expect(await message({ unmask: { threshold: 2 } })).toBe('unmask.threshold: expected a number of at most 1, not 2')
  expect(await message({ unmask: { treshold: 2 } })).toBe('unmask.treshold: unknown key')
  expect(await message({ unmask: { strategy: 'x' } })).toContain('unmask.strategy: expected one of threshold, fixed')
})

test('what is not supported is refused by name, and its default is not', async () => {
  const chat = (fields: object) =>
    post(`${server.url}/v1/chat/completions`, { ...routes['/v1/chat/completions'], ...fields })
  for (const fields of [{ functions: [] }, { function_call: 'auto' }, { audio: {} }, { modalities: ['audio'] }]) {
    const response = await chat(fields)
    expect(await response.json()).toMatchObject({ error: { param: expect.stringContaining(Object.keys(fields)[0]!) } })
    expect(response.status).toBe(400)
  }
  const harmless = { functions: null, modalities: ['text'], frequency_penalty: 0, presence_penalty: null, store: true }
  expect((await chat(harmless)).status).toBe(200)
  const completions = (fields: object) =>
    post(`${server.url}/v1/completions`, { ...routes['/v1/completions'], ...fields })
  expect((await completions({ best_of: 2 })).status).toBe(400)
  expect((await completions({ best_of: 1 })).status).toBe(200)
  const responses = (fields: object) => post(`${server.url}/v1/responses`, { ...routes['/v1/responses'], ...fields })
  for (const fields of [
    { previous_response_id: 'r' },
    { conversation: 'c' },
    { prompt: { id: 'p' } },
    { background: true },
  ])
    expect((await responses(fields)).status).toBe(400)
  expect((await responses({ previous_response_id: null, background: false, store: true, n: 1 })).status).toBe(200)
})

test('a reference to a stored item says what to send', async () => {
  const input = [
    { role: 'user', content: 'a' },
    { type: 'item_reference', id: 'msg_1' },
  ]
  const response = await post(`${server.url}/v1/responses`, { input })
  expect(response.status).toBe(400)
  expect(await response.json()).toMatchObject({
    error: { param: 'input[1]', message: expect.stringContaining('send the item itself') },
  })
})
