// Processes that stop answering, cannot be started again, or are stopped while they start.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, rename } from 'node:fs/promises'
import { createServer } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parseConfig } from '../../src/serve/index.ts'
import { command } from '../built.ts'
import { diffusionFolder, modelFolder, post, startServer, type TestModel, testServer, until } from './models.ts'

let folder: TestModel
beforeAll(async () => {
  folder = await diffusionFolder()
}, 60_000)
afterAll(() => folder.remove())

const long = { prompt: 'the people of', max_tokens: 1900, logit_bias: { 256: -100, 258: -100 } }

/** Processes of this one that hold models. */
async function modelProcesses(): Promise<string[]> {
  const tasks = await readdir('/proc/self/task')
  const lists = await Promise.all(
    tasks.map((task) => readFile(`/proc/self/task/${task}/children`, 'utf8').catch(() => '')),
  )
  const commands = await Promise.all(
    lists
      .join(' ')
      .split(' ')
      .filter((id) => id !== '')
      .map((id) => readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '')),
  )
  return commands.filter((command) => /serve\/worker\/child/.test(command))
}

test('a process that does not answer: 503, and it is started again', async () => {
  const server = await testServer({ models: [{ name: 'd', path: folder.path }], limits: { seconds: 0.5 } })
  try {
    const stuck = server.processes().d!
    process.kill(stuck, 'SIGSTOP')
    const answer = await post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })
    expect(answer.status).toBe(503)
    expect(await answer.json()).toMatchObject({ error: { code: 'model_unresponsive' } })
    const tokens = await post(`${server.url}/tokenize`, { prompt: 'a' })
    expect(tokens.status).toBe(503)
    await until(async () => (await fetch(`${server.url}/ready`)).status === 503)
    await until(async () => (await fetch(`${server.url}/ready`)).status === 200)
    expect(server.processes().d).not.toBe(stuck)
    expect((await post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })).status).toBe(200)
  } finally {
    await server.close()
  }
}, 60_000)

test('who waits for a process that cannot be started again is told so', async () => {
  const model = await modelFolder({})
  const server = await testServer({ models: [{ name: 't', path: model.path }], limits: { concurrency: 1 } })
  try {
    const url = `${server.url}/v1/completions`
    const first = post(url, long)
    await until(async () =>
      (await (await fetch(`${server.url}/metrics`)).text()).includes('unmask_running{model="t"} 1'),
    )
    const second = post(url, long)
    await until(async () =>
      (await (await fetch(`${server.url}/metrics`)).text()).includes('unmask_waiting{model="t"} 1'),
    )
    await rename(model.path, `${model.path}-gone`)
    process.kill(server.processes().t!, 'SIGKILL')
    expect((await first).status).toBe(503)
    expect((await second).status).toBe(503)
    expect((await fetch(`${server.url}/ready`)).status).toBe(503)
    await rename(`${model.path}-gone`, model.path)
    await until(async () => (await fetch(`${server.url}/ready`)).status === 200)
  } finally {
    await server.close()
    await model.remove()
  }
}, 60_000)

test('a model that cannot be loaded is not tried with every request; /ready says so; a reload tries at once', async () => {
  const model = await modelFolder({})
  const settings = { models: [{ name: 't', path: model.path, preload: false }] }
  const server = await testServer(settings)
  const ask = () => post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })
  try {
    await rename(model.path, `${model.path}-gone`)
    expect((await ask()).status).toBe(503)
    const ready = await fetch(`${server.url}/ready`)
    expect(ready.status).toBe(503)
    expect(await ready.json()).toMatchObject({ models: [{ name: 't', state: 'failed' }] })
    await rename(`${model.path}-gone`, model.path)
    expect(await (await ask()).json()).toMatchObject({ error: { code: 'model_unavailable' } })
    await server.reload(parseConfig(settings))
    expect((await ask()).status).toBe(200)
    expect((await fetch(`${server.url}/ready`)).status).toBe(200)
  } finally {
    await server.close()
    await model.remove()
  }
}, 60_000)

test('a model that takes longer to load than a request may wait', async () => {
  const settings = { models: [{ name: 't', path: folder.path, preload: false }], limits: { queue_seconds: 0.01 } }
  const server = await testServer(settings)
  try {
    const early = await post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })
    expect(early.status).toBe(503)
    expect(await early.json()).toMatchObject({ error: { code: 'model_loading' } })
    await until(() => server.processes().t !== undefined)
    expect((await post(`${server.url}/v1/completions`, { prompt: 'a', max_tokens: 1 })).status).toBe(200)
  } finally {
    await server.close()
  }
})

test('closing during a reload ends the process that starts', async () => {
  const before = await modelProcesses()
  const server = await testServer({ models: [{ name: 'd', path: folder.path }] })
  const reloaded = server.reload(parseConfig({ models: [{ name: 'd', path: folder.path, block_size: 4 }] }))
  await until(async () => (await modelProcesses()).length > before.length + 1)
  await server.close()
  await reloaded
  await until(async () => (await modelProcesses()).length <= before.length)
})

test('however often a reload is asked for, one runs and one waits, with the last settings', async () => {
  const before = await modelProcesses()
  const server = await testServer({ models: [{ name: 'd', path: folder.path }] })
  try {
    const sizes = [2, 3, 4, 5, 6, 8]
    const asked = sizes.map((size) =>
      server.reload(parseConfig({ models: [{ name: 'd', path: folder.path, block_size: size }] })),
    )
    let most = 0
    const watch = setInterval(async () => {
      most = Math.max(most, (await modelProcesses()).length - before.length)
    }, 50)
    await Promise.all(asked)
    clearInterval(watch)
    expect(most).toBeLessThanOrEqual(3)
    const { data } = (await (await fetch(`${server.url}/v1/models`)).json()) as { data: { block_size: number }[] }
    expect(data[0]!.block_size).toBe(8)
  } finally {
    await server.close()
  }
  await server.reload(parseConfig({ models: [{ name: 'e', path: folder.path }] }))
  await until(async () => (await modelProcesses()).length <= before.length)
}, 300_000)

test('a process that is not loaded in time is ended', async () => {
  const before = await modelProcesses()
  const starting = testServer({ models: [{ name: 'd', path: folder.path }], limits: { load_seconds: 0.01 } })
  await expect(starting).rejects.toThrow('not loaded within 0.01 s')
  await until(async () => (await modelProcesses()).length <= before.length)
}, 60_000)

test('a port that is taken is found out before any model is loaded', async () => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  const config = parseConfig({ port, log_level: 'silent', models: [{ name: 'x', path: '/nowhere' }] })
  await expect(startServer(config)).rejects.toThrow('another program has it')
  other.close()
})

test.each(['SIGHUP', 'SIGTERM'] as const)(
  'the command: %s while models are loaded',
  async (signal) => {
    const args = [command, 'serve', folder.path, '--port', '0', '--json', '--threads', '1']
    const child: ChildProcess = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    const closed = once(child, 'close')
    let log = ''
    child.stderr!.on('data', (chunk: Buffer) => {
      log += chunk
    })
    let out = ''
    child.stdout!.on('data', (chunk: Buffer) => {
      out += chunk
    })
    await until(() => log.includes('loading'))
    child.kill(signal)
    if (signal === 'SIGHUP') {
      await until(() => out.includes('url') && log.includes('reloading models'))
      child.kill('SIGTERM')
      expect(await closed).toEqual([0, null])
    } else {
      const ended = await closed
      // A fast machine may have begun to serve before the signal came.
      expect(ended).toEqual([out.includes('url') ? 0 : 143, null])
    }
  },
  60_000,
)

test('a text that cannot fit is refused by its length, before it is tokenised', async () => {
  const server = await testServer({ models: [{ name: 'd', path: folder.path }], limits: { prompt_tokens: 100 } })
  try {
    const text = 'a'.repeat(3201)
    const messages = [{ role: 'user', content: text }]
    for (const [path, body] of [
      ['/v1/completions', { prompt: text, max_tokens: 1 }],
      ['/v1/completions', { prompt: text, max_tokens: 0, echo: true, logprobs: 1 }],
      ['/v1/chat/completions', { messages, max_tokens: 1 }],
      ['/v1/responses', { input: messages, max_output_tokens: 1 }],
      ['/v1/infill', { parts: [text, { mask: 1 }] }],
      ['/v1/rewrite', { input: text }],
      ['/tokenize', { prompt: text }],
      ['/tokenize', { messages }],
    ] as const) {
      const answer = await post(`${server.url}${path}`, body)
      expect(answer.status, path).toBe(400)
      expect(await answer.json(), path).toMatchObject({
        error: { code: 'context_length_exceeded', message: expect.stringContaining('characters; at most 3200') },
      })
    }
    // Whoever asks for tokens is one of many: a client that leaves is not worked for.
    const gone = new AbortController()
    const asked = Array.from({ length: 20 }, () =>
      post(`${server.url}/tokenize`, { prompt: text.slice(1) }, { signal: gone.signal }).catch(() => undefined),
    )
    gone.abort()
    await Promise.all(asked)
    expect((await post(`${server.url}/tokenize`, { prompt: 'a' })).status).toBe(200)
  } finally {
    await server.close()
  }
}, 60_000)
