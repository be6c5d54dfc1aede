// What comes before the API: pages of other origins, and how bodies are encoded.
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hashKey, parseConfig, type RunningServer } from '../../src/serve/index.ts'
import { testServer, tiny } from './models.ts'

const ORIGIN = 'http://localhost:5173'
const LIMIT = 4096
let server: RunningServer

beforeAll(async () => {
  server = await testServer({
    models: [{ name: 't', path: tiny }],
    cors_origins: [`${ORIGIN}/`],
    limits: { body_bytes: LIMIT },
    api_keys: [{ name: 'a', sha256: hashKey('a') }],
  })
}, 60_000)
afterAll(() => server.close(), 60_000)

describe('pages of other origins', () => {
  const preflight = (headers: readonly string[]) =>
    fetch(`${server.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: {
        origin: ORIGIN,
        'access-control-request-method': 'POST',
        'access-control-request-headers': headers.join(','),
      },
    })

  test('may send what the official client sends', async () => {
    let sent: string[] = []
    const client = new OpenAI({
      apiKey: 'a',
      organization: 'o',
      project: 'p',
      dangerouslyAllowBrowser: true,
      fetch: async (_, init) => {
        sent = [...new Headers(init?.headers).keys()]
        return Response.json({})
      },
    })
    await client.chat.completions.create({ model: 't', messages: [{ role: 'user', content: 'a' }] }, { timeout: 1000 })
    expect(sent).toContain('x-stainless-lang')
    const { status, headers } = await preflight(sent)
    expect(status).toBe(204)
    expect(headers.get('access-control-allow-origin')).toBe(ORIGIN)
    const allowed = headers.get('access-control-allow-headers')!.toLowerCase().split(/, */)
    expect(sent.filter((name) => !allowed.includes(name))).toEqual([])
  })

  test('read errors too, and the headers that clients read', async () => {
    const refused = await fetch(`${server.url}/v1/models`, { headers: { origin: ORIGIN } })
    expect(refused.status).toBe(401)
    expect(refused.headers.get('access-control-allow-origin')).toBe(ORIGIN)
    expect(refused.headers.get('access-control-expose-headers')!.toLowerCase()).toContain('x-request-id')
    const stranger = await fetch(`${server.url}/v1/models`, { headers: { origin: 'http://localhost:5174' } })
    expect(stranger.headers.get('access-control-allow-origin')).toBe(null)
  })

  test('are named in the configuration by their origin', () => {
    const origins = (...cors_origins: string[]) => parseConfig({ models: [{ path: tiny }], cors_origins }).cors_origins
    expect(origins('https://App.Example/', 'http://a:80', 'https://a:8443')).toEqual([
      'https://app.example',
      'http://a',
      'https://a:8443',
    ])
    expect(origins('chrome-extension://abcdef', 'tauri://localhost/')).toEqual([
      'chrome-extension://abcdef',
      'tauri://localhost',
    ])
    for (const wrong of [
      'http://a/app',
      'http://a/?x',
      'http://a/#x',
      'http://u@a',
      'localhost:3000',
      '*',
      'a',
      'data:x',
    ])
      expect(() => origins(wrong), wrong).toThrow('cors_origins')
  })
})

describe('bodies', () => {
  const send = async (body: Uint8Array | string, headers: Record<string, string> = {}) => {
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer a', ...headers },
      body: Buffer.from(body),
    })
    const { error } = (await response.json()) as { error?: { message: string; code: string | null } }
    return { status: response.status, code: error?.code, message: error?.message }
  }
  const json = JSON.stringify({ prompt: 'a', max_tokens: 1 })

  test.each([
    ['gzip', gzipSync],
    ['x-gzip', gzipSync],
    ['GZIP', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['identity', (text: string) => Buffer.from(text)],
  ])('%s is decoded', async (coding, encode) => {
    expect(await send(encode(json), { 'content-encoding': coding })).toMatchObject({ status: 200 })
  })

  test('another coding is refused by name, a broken one with 400', async () => {
    for (const coding of ['compress', 'gzip, br', 'aws-chunked']) {
      const { status, message } = await send(gzipSync(json), { 'content-encoding': coding })
      expect([status, message]).toEqual([415, expect.stringContaining(coding)])
    }
    const broken = [gzipSync(json).subarray(0, 20), Buffer.from(json), new Uint8Array()]
    for (const body of broken) expect((await send(body, { 'content-encoding': 'gzip' })).status).toBe(400)
    expect((await send(deflateRawSync(json), { 'content-encoding': 'deflate' })).status).toBe(400)
  })

  test('the limit is that of the decoded body', async () => {
    const large = JSON.stringify({ prompt: 'a'.repeat(LIMIT) })
    for (const [coding, encode] of [
      ['gzip', gzipSync],
      ['deflate', deflateSync],
      ['br', brotliCompressSync],
    ] as const)
      expect(await send(encode(large), { 'content-encoding': coding })).toMatchObject({ status: 413 })
    expect(await send(large)).toMatchObject({ status: 413, code: 'body_too_large' })
  })

  test('are UTF-8, with or without a mark', async () => {
    expect((await send(`\ufeff${json}`)).status).toBe(200)
    for (const charset of ['utf-8', 'UTF8', '"utf-8"', 'us-ascii'])
      expect((await send(json, { 'content-type': `application/json; charset=${charset}` })).status).toBe(200)
    const { status, message } = await send(json, { 'content-type': 'application/json;charset=utf-16' })
    expect([status, message]).toEqual([415, expect.stringContaining('utf-16')])
    const latin = Buffer.from(JSON.stringify({ prompt: 'é' }), 'latin1')
    expect(await send(latin)).toMatchObject({ status: 400, message: expect.stringContaining('UTF-8') })
    expect(await send(Buffer.from(`\ufeff${json}`, 'utf16le'))).toMatchObject({ status: 400 })
  })
})
