// The examples of docs/scenarios.md, run as a reader runs them, against a real server.
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunningServer } from '../src/serve/index.ts'
import { diffusionFolder, type TestModel, testServer, tiny } from './serve/models.ts'

const examples = fileURLToPath(new URL('../examples/scenarios', import.meta.url))
let folder: TestModel
let server: RunningServer
beforeAll(async () => {
  folder = await diffusionFolder()
  const models = [
    { name: 'tiny', path: tiny },
    { name: 'diffusion', path: folder.path },
  ]
  server = await testServer({ models })
})
afterAll(async () => {
  await server.close()
  await folder.remove()
})

async function run(...args: string[]): Promise<string> {
  const env = { ...process.env, UNMASK_URL: server.url, UNMASK_MODEL: 'diffusion' }
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: examples, env })
  return stdout
}

test('customer service answers from the sections that fit, or not at all', async () => {
  const known = JSON.parse(await run('customer-service.mjs', 'policy.md', 'May I return shoes?'))
  expect(known.sources).toEqual(['Returns'])
  expect(typeof known.answer).toBe('string')
  const unknown = JSON.parse(await run('customer-service.mjs', 'policy.md', 'Who won the election?'))
  expect(unknown.sources).toEqual([])
  expect(unknown.answer).toMatch(/nothing about that/)
})

test('marketing copy comes in variants with their diversity', async () => {
  const { texts, ...scores } = JSON.parse(await run('marketing-copy.mjs', 'a bottle', '3'))
  expect(texts).toHaveLength(3)
  for (const score of Object.values(scores)) {
    expect(score).toBeGreaterThanOrEqual(0)
    expect(score).toBeLessThanOrEqual(1)
  }
})

test('diversity scores are those of their definitions', async () => {
  const script = `import { distinct, selfBleu } from './diversity.mjs'
    console.log(JSON.stringify([distinct(['a b a', 'b c'], 1), distinct(['a b', 'a b'], 2), selfBleu(['a b c d e', 'a b c d e']), selfBleu(['a b c d e f g h', 'i j k l m n o p'])]))`
  const [one, two, same, different] = JSON.parse(await run('--input-type=module', '-e', script))
  expect([one, two]).toEqual([3 / 5, 1 / 2])
  expect(same).toBeCloseTo(1)
  expect(different).toBeLessThan(0.05)
})

test('a gap in a program is filled, the rest stays', async () => {
  const lines = (await run('code-infill.mjs', 'gap.js', '3')).split('\n')
  expect(lines.slice(0, 2)).toEqual(['export function sum(values) {', '  let total = 0'])
  expect(lines.join('\n')).toMatch(/\n {2}return total\n}\n/)
  expect(lines.join('\n')).not.toContain('total -= value')
})

test('every product of a catalogue gets a description', async () => {
  const rows = (await run('descriptions.mjs', 'profile.json', 'catalogue.jsonl')).trim().split('\n')
  const parsed = rows.map((row) => JSON.parse(row))
  expect(parsed.map(({ sku }) => sku)).toEqual(['B-17', 'J-03'])
  for (const { description } of parsed) expect(typeof description).toBe('string')
})
