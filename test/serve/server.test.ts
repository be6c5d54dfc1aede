// A server as its operator meets it: queues, limits, clients that go, processes that die, reload, shutdown.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { hashKey, parseConfig, type RunningServer } from '../../src/serve/index.ts'
import { command } from '../built.ts'
import { diffusionFolder, metric, post, type TestModel, testServer, tiny, until } from './models.ts'

let folder: TestModel
beforeAll(async () => {
  folder = await diffusionFolder()
}, 60_000)
afterAll(() => folder.remove())

/** Far more than a test waits for: what ends a text is forbidden. */
const long = { prompt: 'the people of', max_tokens: 1900, logit_bias: { 256: -100, 258: -100 } }

async function withServer(
  settings: Parameters<typeof testServer>[0],
  body: (server: RunningServer) => Promise<void>,
): Promise<void> {
  const server = await testServer(settings)
  try {
    await body(server)
  } finally {
    await server.close()
  }
}

const running = (server: RunningServer, model: string) => metric(server.url, `unmask_running{model="${model}"}`)

/** Reads the events of a stream until it ends. */
async function readStream(response: Response): Promise<{ text: string; data: string[] }> {
  const data = (await response.text())
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => event.replace(/^data: /, ''))
  const text = data
    .filter((event) => event !== '[DONE]')
    .map((event) => JSON.parse(event).choices?.[0]?.text ?? '')
    .join('')
  return { text, data }
}

test.each([
  ['to compile', (i: number) => `^((a|b|ab)*c?){1,${1000 + i}}$`, 900],
  ['to follow', (i: number) => `^(b|${'a?'.repeat(7000)}){1,${300 + i}}$`, undefined],
])(
  'schemas that take long %s hold up nobody: neither plain requests nor another client with a schema',
  async (_, patternOf, maxLength) => {
    const keys = ['greedy', 'polite']
    const api_keys = keys.map((name) => ({ name, sha256: hashKey(name) }))
    await withServer({ models: [{ name: 't', path: tiny }], api_keys }, async (server) => {
      const done: string[] = []
      const ask = async (name: string, key: string, path: string, body: object) => {
        const headers = { authorization: `Bearer ${key}` }
        const answer = await post(`${server.url}/v1/${path}`, { max_tokens: 2, ...body }, { headers })
        await answer.text()
        done.push(`${name} ${answer.status}`)
      }
      const constrained = (name: string, key: string, schema: object) =>
        ask(name, key, 'chat/completions', {
          messages: [{ role: 'user', content: 'x' }],
          response_format: { type: 'json_schema', json_schema: { name: 'x', schema } },
        })
      await ask('first', 'polite', 'completions', { prompt: 'a' })
      // Refused after some tenths of a second of work.
      const greedy = Array.from({ length: 8 }, (_, i) =>
        constrained('long', 'greedy', { type: 'string', pattern: patternOf(i), maxLength }),
      )
      await Promise.race(greedy)
      await Promise.all([
        ...greedy,
        ask('plain', 'polite', 'completions', { ...long, max_tokens: 32 }),
        constrained('short', 'polite', { enum: ['a'] }),
      ])
      expect(done.indexOf('plain 200')).toBeLessThan(7)
      expect(done.indexOf('short 200')).toBeLessThan(7)
      expect(done.filter((name) => name === 'long 400')).toHaveLength(8)
    })
  },
  60_000,
)

test.runIf(process.platform === 'linux')('processes of models get no key of the server', async () => {
  const names = ['UNMASK_API_KEY', 'UNMASK_API_KEY_SHA256', 'UNMASK_AUDIT_KEY', 'UNMASK_MODERATION_KEY']
  for (const name of names) process.env[name] = 'of-the-server'
  try {
    await withServer({ models: [{ name: 't', path: tiny }] }, async (server) => {
      const environment = await readFile(`/proc/${server.processes().t}/environ`, 'utf8')
      expect(environment).toContain('PATH=')
      expect(environment).not.toContain('of-the-server')
    })
  } finally {
    for (const name of names) delete process.env[name]
  }
})

test('answers that wait to be read have a bound, and count until they have been', async () => {
  await withServer({ models: [{ name: 't', path: tiny }], limits: { answer_bytes: 100_000 } }, async (server) => {
    const ask = (body: object) => post(`${server.url}/v1/completions`, { prompt: 'the people of', ...body })
    const large = await ask({ max_tokens: 100, logprobs: 5, logit_bias: long.logit_bias })
    expect(large.status).toBe(429)
    expect(await large.json()).toMatchObject({ error: { code: 'answer_too_large' } })
    const echoed = await ask({ prompt: 'the people '.repeat(40), max_tokens: 0, echo: true, logprobs: 5 })
    expect(echoed.status).toBe(429)
    // A stream is read as it comes, and nothing of an answer that was read counts.
    const streamed = await ask({ max_tokens: 300, logprobs: 5, logit_bias: long.logit_bias, stream: true })
    expect((await streamed.text()).endsWith('data: [DONE]\n\n')).toBe(true)
    for (let i = 0; i < 3; i++) expect((await ask({ max_tokens: 30, logprobs: 5 })).status).toBe(200)
  })
}, 60_000)

test('requests at the same time are answered as the same request alone', async () => {
  await withServer({ models: [{ name: 'd', path: folder.path }] }, async (server) => {
    const prompts = Array.from({ length: 8 }, (_, i) => `the ${'people of '.repeat(i % 4)}${i}`)
    const ask = async (prompt: string) => {
      const response = await post(`${server.url}/v1/completions`, { prompt, max_tokens: 12 + prompt.length })
      const { choices, usage } = (await response.json()) as {
        choices: { text: string }[]
        usage: { completion_tokens: number; forwards: number }
      }
      return { text: choices[0]!.text, tokens: usage.completion_tokens, forwards: usage.forwards }
    }
    const alone = []
    for (const prompt of prompts) alone.push(await ask(prompt))
    expect(await Promise.all(prompts.map(ask))).toEqual(alone)
  })
})

test('a full queue answers 429 with Retry-After, and clients take turns', async () => {
  const settings = {
    models: [{ name: 't', path: tiny }],
    limits: { concurrency: 1, queue: 1 },
    api_keys: [{ name: 'a', sha256: hashKey('a') }],
  }
  await withServer(settings, async (server) => {
    const headers = { authorization: 'Bearer a' }
    const url = `${server.url}/v1/completions`
    const stop = new AbortController()
    const first = post(url, long, { headers, signal: stop.signal }).catch(() => undefined)
    const second = post(url, { ...long, max_tokens: 2 }, { headers })
    await until(async () => {
      const text = await (await fetch(`${server.url}/metrics`, { headers })).text()
      return text.includes('unmask_waiting{model="t"} 1')
    })
    const third = await post(url, long, { headers })
    expect(third.status).toBe(429)
    expect(Number(third.headers.get('retry-after'))).toBeGreaterThanOrEqual(1)
    expect(await third.json()).toMatchObject({ error: { type: 'rate_limit_error', code: 'queue_full' } })
    stop.abort()
    await first
    expect((await second).status).toBe(200)
  })
})

test('limits of a key answer 429', async () => {
  const settings = {
    models: [{ name: 't', path: tiny }],
    api_keys: [{ name: 'a', sha256: hashKey('a'), requests_per_minute: 2 }],
  }
  await withServer(settings, async (server) => {
    const get = (key: string) => fetch(`${server.url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })
    expect([(await get('a')).status, (await get('a')).status]).toEqual([200, 200])
    const third = await get('a')
    expect(third.status).toBe(429)
    expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(50)
    expect((await get('b')).status).toBe(401)
    expect((await fetch(`${server.url}/v1/models`)).headers.get('www-authenticate')).toBe('Bearer')
    expect((await fetch(`${server.url}/health`)).status).toBe(200)
  })
})

test('prompts share what was computed with those of the same key only', async () => {
  const settings = {
    models: ['t', 'd'].map((name) => ({ name, path: name === 't' ? tiny : folder.path, prefix_cache: 8 })),
    api_keys: ['a', 'b'].map((name) => ({ name, sha256: hashKey(name) })),
  }
  const secret = 'My account number is 8841-2277 and the launch is on Tuesday the fourth of May in Oslo.'
  await withServer(settings, async (server) => {
    for (const model of ['t', 'd']) {
      const cached = async (key: string) => {
        const body = { model, prompt: secret, max_tokens: 1 }
        const response = await post(`${server.url}/v1/completions`, body, {
          headers: { authorization: `Bearer ${key}` },
        })
        const { usage } = (await response.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
        return usage.prompt_tokens_details.cached_tokens
      }
      expect(await cached('a')).toBe(0)
      expect(await cached('a')).toBeGreaterThan(0)
      expect(await cached('b')).toBe(0)
    }
  })
})

test.each([true, false])('a client that goes frees its place (stream: %s)', async (stream) => {
  await withServer({ models: [{ name: 'd', path: folder.path }] }, async (server) => {
    const stop = new AbortController()
    const request = post(`${server.url}/v1/completions`, { ...long, stream }, { signal: stop.signal })
    if (stream) {
      const reader = (await request).body!.getReader()
      await reader.read()
      await reader.read()
    } else {
      void request.catch(() => {})
      await until(async () => (await running(server, 'd')) === 1)
    }
    stop.abort()
    await until(async () => (await running(server, 'd')) === 0)
    // The process has let go of it too: an answer comes without the old one running to its end.
    const after = await post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })
    expect(after.status).toBe(200)
    expect(await metric(server.url, 'unmask_cancelled_total{model="d"}')).toBe(1)
    expect(await metric(server.url, 'unmask_completion_tokens_total{model="d"}')).toBe(1)
  })
})

test('a killed model process: 503, then back by itself, and other models go on', async () => {
  const settings = {
    models: [
      { name: 'd', path: folder.path },
      { name: 't', path: tiny },
    ],
  }
  await withServer(settings, async (server) => {
    const url = `${server.url}/v1/completions`
    const other = post(url, { ...long, model: 't', max_tokens: 300, stream: true }).then(readStream)
    const broken = post(url, { ...long, model: 'd' })
    await until(async () => (await running(server, 'd')) === 1 && (await running(server, 't')) === 1)
    process.kill(server.processes().d!, 'SIGKILL')
    const lost = await broken
    expect(lost.status).toBe(503)
    expect(lost.headers.get('retry-after')).not.toBe(null)
    expect(await lost.json()).toMatchObject({ error: { code: 'model_restarting' } })
    expect((await fetch(`${server.url}/ready`)).status).toBe(503)
    await until(async () => (await fetch(`${server.url}/ready`)).status === 200)
    expect((await post(url, { model: 'd', prompt: 'a', max_tokens: 2 })).status).toBe(200)
    expect((await other).data.at(-1)).toBe('[DONE]')
    expect(await metric(server.url, 'unmask_model_restarts_total{model="d"}')).toBe(1)
  })
})

test('a stream whose process is killed ends with an error that clients raise', async () => {
  await withServer({ models: [{ name: 'd', path: folder.path }] }, async (server) => {
    const response = await post(`${server.url}/v1/completions`, { ...long, stream: true })
    process.kill(server.processes().d!, 'SIGKILL')
    const { data } = await readStream(response)
    expect(JSON.parse(data.at(-1)!)).toMatchObject({ error: { code: 'model_restarting' } })
  })
})

test('a model is loaded when first asked for, unloaded when idle, and loaded again', async () => {
  await withServer({ models: [{ name: 't', path: tiny, preload: false, idle_seconds: 0.2 }] }, async (server) => {
    const ask = async () => (await post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })).status
    expect(server.processes()).toEqual({})
    expect((await fetch(`${server.url}/ready`)).status).toBe(200)
    expect(await ask()).toBe(200)
    expect(Object.keys(server.processes())).toEqual(['t'])
    await until(() => Object.keys(server.processes()).length === 0)
    expect(await ask()).toBe(200)
  })
})

test('reload exchanges the process; what runs ends in the old one', async () => {
  await withServer({ models: [{ name: 'd', path: folder.path }] }, async (server) => {
    const before = server.processes().d
    const stream = await post(`${server.url}/v1/completions`, { ...long, max_tokens: 200, stream: true })
    await server.reload(
      parseConfig({
        models: [
          { name: 'd', path: folder.path, block_size: 4 },
          { name: 't', path: tiny, preload: false },
        ],
      }),
    )
    expect(server.processes().d).not.toBe(before)
    const { data } = (await (await fetch(`${server.url}/v1/models`)).json()) as { data: object[] }
    expect(data).toMatchObject([{ id: 'd', block_size: 4 }, { id: 't' }])
    expect((await readStream(stream)).data.at(-1)).toBe('[DONE]')
    // A model that cannot be loaded leaves the one that can.
    await server.reload(parseConfig({ models: [{ name: 'd', path: '/nowhere' }] }))
    expect((await post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })).status).toBe(200)
  })
})

test('when its time is over an answer is cut', async () => {
  await withServer({ models: [{ name: 'd', path: folder.path }], limits: { seconds: 0.3 } }, async (server) => {
    const response = await post(`${server.url}/v1/completions`, long)
    const { choices, usage } = (await response.json()) as {
      choices: { finish_reason: string; text: string }[]
      usage: { completion_tokens: number }
    }
    expect(choices[0]!.finish_reason).toBe('length')
    expect(usage.completion_tokens).toBeGreaterThan(0)
    expect(usage.completion_tokens).toBeLessThan(1900)
  })
})

test('unmasking events tell every token of the answer, and the text is the same', async () => {
  await withServer({ models: [{ name: 'd', path: folder.path }] }, async (server) => {
    const body = { prompt: 'the people', max_tokens: 40, stream: true }
    const plain = await readStream(await post(`${server.url}/v1/completions`, body))
    const shown = await readStream(await post(`${server.url}/v1/completions`, { ...body, unmask: { unmasking: true } }))
    expect(shown.text).toBe(plain.text)
    const tokens = new Map<number, { token: number; confidence: number }>()
    for (const event of shown.data.slice(0, -1))
      for (const token of JSON.parse(event).choices[0].unmask?.tokens ?? []) tokens.set(token.position, token)
    // Of this tokenizer the ids below 256 are bytes.
    const bytes = Array.from({ length: 40 }, (_, i) => tokens.get(i)!.token).filter((id) => id < 256)
    expect(Buffer.from(bytes).toString().startsWith(plain.text)).toBe(true)
    for (const { confidence } of tokens.values()) expect(confidence).toBeLessThanOrEqual(1)
  })
})

test('a gap is filled between prompt and suffix', async () => {
  const models = [
    { name: 'd', path: folder.path },
    { name: 't', path: tiny },
  ]
  await withServer({ models }, async (server) => {
    const body = { prompt: 'the people of', suffix: ' of America', max_tokens: 12 }
    const filled = await post(`${server.url}/v1/completions`, { ...body, model: 'd' })
    const { choices, usage } = (await filled.json()) as {
      choices: { text: string; finish_reason: string }[]
      usage: { completion_tokens: number }
    }
    expect(choices[0]!.finish_reason).toBe('length')
    expect(usage.completion_tokens).toBe(12)
    // One token is one byte here, and special ones have no text.
    expect(Buffer.byteLength(choices[0]!.text)).toBeLessThanOrEqual(12)
    const streamed = await readStream(await post(`${server.url}/v1/completions`, { ...body, model: 'd', stream: true }))
    expect(streamed.text).toBe(choices[0]!.text)
    const refused = await post(`${server.url}/v1/completions`, { ...body, model: 't' })
    expect(refused.status).toBe(400)
    expect(await refused.json()).toMatchObject({ error: { param: 'suffix' } })
  })
})

test('tools are rendered by templates that know them, and refused by others', async () => {
  const models = [
    { name: 'd', path: folder.path },
    { name: 't', path: tiny },
  ]
  await withServer({ models }, async (server) => {
    const tool = { type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }
    const chat = (rest: object) =>
      post(`${server.url}/v1/chat/completions`, {
        ...{ messages: [{ role: 'user', content: 'a' }], max_tokens: 2, model: 'd' },
        ...rest,
      })
    const promptTokens = async (response: Response) =>
      ((await response.json()) as { usage: { prompt_tokens: number } }).usage.prompt_tokens
    const plain = await promptTokens(await chat({}))
    expect(await promptTokens(await chat({ tools: [tool] }))).toBeGreaterThan(plain + 'weather'.length)
    expect(await promptTokens(await chat({ tools: [tool], tool_choice: 'none' }))).toBe(plain)
    const called = [
      { role: 'user', content: 'a' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'x', type: 'function', function: { name: 'weather', arguments: '{"city":"Bonn"}' } }],
      },
      { role: 'tool', tool_call_id: 'x', content: 'rain' },
    ]
    expect(await promptTokens(await chat({ messages: called }))).toBeGreaterThan(plain + 'Bonn'.length)
    const refused = await chat({ model: 't', tools: [tool] })
    expect(refused.status).toBe(400)
    expect(await refused.json()).toMatchObject({ error: { param: 'tools' } })
  })
})

test('the same seed draws the same answer, other choices other ones', async () => {
  await withServer({ models: [{ name: 'd', path: folder.path }] }, async (server) => {
    const body = { prompt: 'the people', max_tokens: 24, temperature: 1, seed: 5, n: 3 }
    const ask = async () => {
      const response = await post(`${server.url}/v1/completions`, body)
      return ((await response.json()) as { choices: { text: string }[] }).choices.map(({ text }) => text)
    }
    const first = await ask()
    expect(new Set(first).size).toBe(3)
    expect(await ask()).toEqual(first)
  })
})

test('headers, other origins and other host names', async () => {
  const settings = { models: [{ name: 't', path: tiny, preload: false }], cors_origins: ['https://app.example'] }
  await withServer(settings, async (server) => {
    const { headers } = await fetch(`${server.url}/health`, { headers: { origin: 'https://evil.example' } })
    expect(headers.get('access-control-allow-origin')).toBe(null)
    expect(headers.get('x-content-type-options')).toBe('nosniff')
    expect(headers.get('content-security-policy')).toContain("default-src 'none'")
    const friend = await fetch(`${server.url}/health`, { headers: { origin: 'https://app.example' } })
    expect(friend.headers.get('access-control-allow-origin')).toBe('https://app.example')
    const form = await fetch(`${server.url}/v1/completions`, { method: 'POST', body: '{"prompt":"a"}' })
    expect(form.status).toBe(415)
    const { hostname, port } = new URL(server.url)
    const { request } = await import('node:http')
    const rebound = request({ hostname, port, path: '/v1/models', headers: { host: 'evil.example' } })
    rebound.end()
    const [answer] = await once(rebound, 'response')
    expect(answer.statusCode).toBe(403)
    answer.resume()
  })
})

test('the document and its page ask for nothing elsewhere', async () => {
  await withServer({ models: [{ name: 't', path: tiny, preload: false }] }, async (server) => {
    const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as { paths: object }
    expect(Object.keys(document.paths)).toContain('/v1/chat/completions')
    const page = await (await fetch(`${server.url}/docs`)).text()
    expect(page).toContain('max_completion_tokens')
    expect(page).not.toMatch(/(src|href)="(https?:)?\/\//)
    expect(page).not.toContain('<script')
  })
})

test('the command: SIGTERM lets a stream end, then exits with 0 and leaves no process', async () => {
  const child = spawn(
    process.execPath,
    [command, 'serve', `d=${folder.path}`, '--port', '0', '--json', '--threads', '1'],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let log = ''
  child.stderr.on('data', (chunk: Buffer) => {
    log += chunk
  })
  const [line] = await once(child.stdout, 'data')
  const { url } = JSON.parse(String(line)) as { url: string }
  const model = Number(/"pid":(\d+)/.exec(log)?.[1])
  const response = await post(`${url}/v1/completions`, { ...long, max_tokens: 400, stream: true })
  child.kill('SIGTERM')
  const { data } = await readStream(response)
  expect(data.at(-1)).toBe('[DONE]')
  const [code] = await once(child, 'exit')
  expect(code).toBe(0)
  expect(log).toContain('"msg":"stopped"')
  expect(log).not.toContain('the people of')
  await until(async () => !(await readdir('/proc')).includes(String(model)))
})
