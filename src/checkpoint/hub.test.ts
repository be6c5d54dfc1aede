import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { COMMIT, type HubServer, startHub } from '../../test/checkpoint/hub-server.ts'
import { UserError } from '../core/types.ts'
import { pull } from './hub.ts'

let folder: string
let hub: HubServer | undefined
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-hub-'))
  vi.stubEnv('UNMASK_CACHE', join(folder, 'cache'))
  vi.stubEnv('HF_TOKEN', '')
})
afterEach(async () => {
  await hub?.close()
  hub = undefined
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true })
})

const start = async (files: Record<string, string | Buffer>, token?: string): Promise<HubServer> => {
  hub = await startHub({
    name: 'owner/model',
    files: Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, Buffer.from(bytes)])),
    ...(token === undefined ? {} : { token }),
  })
  vi.stubEnv('HF_ENDPOINT', `${hub.url}/`)
  return hub
}

const weights = Buffer.from(Float32Array.from({ length: 50_000 }, (_, i) => Math.sin(i)).buffer)
const model = {
  'config.json': '{"model_type":"llama"}',
  'tokenizer.json': '{}',
  'README.md': 'read me',
  'model.safetensors': weights,
  'pytorch_model.bin': 'pickled',
  'onnx/model.onnx': 'onnx',
}

const snapshot = (): string => join(folder, 'cache', 'hub', 'owner--model', COMMIT)
const visible = async (): Promise<string[]> =>
  (await readdir(snapshot())).filter((name) => !name.startsWith('.')).sort()

describe('a repository', () => {
  it('is fetched once: the files of its checkpoint, under its commit', async () => {
    const { requests } = await start(model)
    const calls: [number, number, string][] = []
    const { path } = await pull('owner/model', { progress: (...call) => calls.push(call) })
    expect(path).toBe(snapshot())
    expect(await visible()).toEqual(['README.md', 'config.json', 'model.safetensors', 'tokenizer.json'])
    expect(weights.equals(await readFile(join(path, 'model.safetensors')))).toBe(true)
    const progress = calls.filter(([, , file]) => file === 'model.safetensors')
    expect(progress[0]).toEqual([0, weights.length, 'model.safetensors'])
    expect(progress.at(-1)).toEqual([weights.length, weights.length, 'model.safetensors'])

    requests.length = 0
    expect(await pull('owner/model')).toEqual({ path })
    expect(requests.map((request) => request.path)).toEqual(['/api/models/owner/model/revision/main'])
  })

  it('is used from the cache when the Hub cannot be reached', async () => {
    const server = await start(model)
    const { path } = await pull('owner/model@v1')
    await server.close()
    expect(await pull('owner/model@v1')).toEqual({ path })
    expect(await pull(`owner/model@${COMMIT}`)).toEqual({ path })
    await expect(pull('owner/model')).rejects.toThrow(/cannot be reached .* not in the cache/)
  })

  it('has branches with slashes and refuses ones that leave the cache', async () => {
    await start(model)
    expect(await pull('owner/model@refs/pr/1')).toEqual({ path: snapshot() })
    await expect(pull('owner/model@../../x')).rejects.toThrow(UserError)
  })

  it('is read with a token, which the storage host does not see', async () => {
    const { requests } = await start(model, 'hf_secret')
    await expect(pull('owner/model')).rejects.toThrow(/owner\/model@main: not found, or private or gated: .*HF_TOKEN/)
    await expect(pull('owner/model', { token: 'hf_wrong' })).rejects.toThrow(/the token may not read it \(403\)/)
    await expect(pull('owner/model', { token: 'secret' })).rejects.toThrow(/begins with hf_/)
    requests.length = 0
    vi.stubEnv('HF_TOKEN', 'hf_secret')
    await pull('owner/model')
    expect(requests.every(({ authorization, storage }) => storage === (authorization === undefined))).toBe(true)
    expect(requests.some(({ storage }) => storage)).toBe(true)
  })

  it('that does not exist, or lacks the revision, is said to be missing', async () => {
    await start(model)
    await expect(pull('owner/other')).rejects.toThrow(/owner\/other@main: not found/)
    await expect(pull('owner/model@v9')).rejects.toThrow(/owner\/model@v9: not found on the Hub; check .* revision/)
  })

  it('gives the shards that its index names', async () => {
    const shard = (n: number): string => `model-0000${n}-of-00002.safetensors`
    await start({
      ...model,
      'model.safetensors.index.json': JSON.stringify({ weight_map: { a: shard(1), b: shard(2), c: shard(2) } }),
      [shard(1)]: 'one',
      [shard(2)]: 'two',
      'consolidated.safetensors': 'everything again',
    })
    await pull('owner/model')
    expect(await visible()).toEqual([
      'README.md',
      'config.json',
      shard(1),
      shard(2),
      'model.safetensors.index.json',
      'tokenizer.json',
    ])
  })

  it('whose index names a path is refused', async () => {
    await start({ ...model, 'model.safetensors.index.json': '{"weight_map":{"a":"../../escape.safetensors"}}' })
    await expect(pull('owner/model')).rejects.toThrow(/has no file \.\.\/\.\.\/escape\.safetensors/)
  })

  it('gives its only GGUF file, or the one that is named', async () => {
    const server = await start({ 'a.gguf': 'A' })
    expect(await pull('owner/model')).toEqual({ path: join(snapshot(), 'a.gguf') })
    await server.close()
    await rm(join(folder, 'cache'), { recursive: true })
    await start({ 'a-Q4_0.gguf': 'A', 'b-Q8_0.gguf': 'B' })
    await expect(pull('owner/model')).rejects.toThrow(/several .gguf files; name one: owner\/model\/a-Q4_0.gguf, /)
    expect(await pull('owner/model/b-Q8_0.gguf')).toEqual({ path: join(snapshot(), 'b-Q8_0.gguf') })
    expect(await visible()).toEqual(['b-Q8_0.gguf'])
    await expect(pull('owner/model/c.gguf@main')).rejects.toThrow(/has no file c.gguf/)
  })

  it('without weights that can be read is refused', async () => {
    await start({ 'config.json': '{}', 'pytorch_model.bin': 'pickled' })
    await expect(pull('owner/model')).rejects.toThrow(/neither .safetensors nor .gguf/)
  })
})

describe('a download', () => {
  const ranges = (): (string | undefined)[] => hub!.requests.filter(({ storage }) => storage).map(({ range }) => range)

  it('that breaks off is continued where it ended', async () => {
    const { faults } = await start({ 'a.gguf': weights })
    faults.truncate = [70_000, 50_000]
    const { path } = await pull('owner/model')
    expect(weights.equals(await readFile(path))).toBe(true)
    const starts = ranges().map((range) => Number(/\d+/.exec(range ?? '0')![0]))
    expect(starts).toHaveLength(3)
    expect(starts[1]).toBeGreaterThan(0)
    expect(starts[2]).toBeGreaterThan(starts[1]!)
  })

  it('is continued by the next call, in another process as well', async () => {
    await start({ 'a.gguf': weights })
    await mkdir(snapshot(), { recursive: true })
    await writeFile(join(snapshot(), 'a.gguf.partial'), weights.subarray(0, 123_456))
    const { path } = await pull('owner/model')
    expect(ranges()).toEqual(['bytes=123456-'])
    expect(weights.equals(await readFile(path))).toBe(true)
    expect(await visible()).toEqual(['a.gguf'])
  })

  it('is started again when the server ignores ranges, or the partial file is damaged or too long', async () => {
    const { faults } = await start({ 'a.gguf': weights })
    await mkdir(snapshot(), { recursive: true })
    const partial = join(snapshot(), 'a.gguf.partial')
    const cases: [Buffer, boolean][] = [
      [weights.subarray(0, 1000), true],
      [Buffer.alloc(1000, 1), false],
      [Buffer.alloc(weights.length, 1), false],
      [Buffer.alloc(weights.length + 1), false],
    ]
    for (const [bytes, ignoreRanges] of cases) {
      await rm(snapshot(), { recursive: true })
      await mkdir(snapshot())
      await writeFile(partial, bytes)
      faults.ignoreRanges = ignoreRanges
      const { path } = await pull('owner/model')
      expect(weights.equals(await readFile(path))).toBe(true)
    }
  })

  it('is tried again when the server is busy or sends something else', async () => {
    const { faults } = await start({ 'a.gguf': weights })
    faults.unavailable = 1
    faults.corrupt = 1
    const { path } = await pull('owner/model')
    expect(weights.equals(await readFile(path))).toBe(true)
  })

  it('fails when the contents never have the listed checksum, and leaves no file', async () => {
    const { faults } = await start({ ...model, 'model.safetensors': weights })
    // Small files are checked by their git id, weights by sha256.
    faults.corrupt = 4
    await expect(pull('owner/model')).rejects.toThrow(
      /config.json: download failed 4 times, .*its git-sha1 is .*, expected/,
    )
    expect(await visible()).toEqual([])
    await pull('owner/model')
    await rm(join(folder, 'cache'), { recursive: true })
  })

  it('is aborted by a signal, keeps what it has, and continues later', async () => {
    await start({ 'a.gguf': weights })
    const controller = new AbortController()
    const reason = new Error('stop')
    const progress = (done: number): void => {
      if (done > 0) controller.abort(reason)
    }
    await expect(pull('owner/model', { progress, signal: controller.signal })).rejects.toBe(reason)
    const [partial] = await visible()
    expect(partial).toBe('a.gguf.partial')
    await expect(pull('owner/model', { signal: controller.signal })).rejects.toBe(reason)
    expect(weights.equals(await readFile((await pull('owner/model')).path))).toBe(true)
  })
})

describe('sources', () => {
  it('that are local are returned as they are', async () => {
    expect(await pull(folder)).toEqual({ path: folder })
  })

  it.each([
    'nothing',
    './missing',
    '/missing/folder',
    'a/b/c',
    'owner/name@',
    '../owner/name',
    'pypi:',
    'pypi:--flag',
    'pypi:a==b c',
  ])('%j is refused', async (source) => {
    await expect(pull(source)).rejects.toThrow(UserError)
  })
})
