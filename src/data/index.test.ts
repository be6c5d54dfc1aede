import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadTokenizer } from '../tokenizer/index.ts'
import { type DataOptions, openData, validationBatches } from './index.ts'

const vocab = Object.fromEntries(Array.from({ length: 96 }, (_, i) => [String.fromCharCode(32 + i), i]))
const tokenizer = loadTokenizer({
  'tokenizer.json': JSON.stringify({
    model: { type: 'BPE', vocab, merges: [] },
    added_tokens: [{ id: 96, content: '<|end|>', special: true }],
  }),
  'tokenizer_config.json': JSON.stringify({ eos_token: '<|end|>' }),
})

async function dataset(name: string, rows: unknown[]): Promise<string> {
  const path = join(await mkdtemp(join(tmpdir(), 'unmask-data-')), name)
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return path
}

const options = (path: string, more: Partial<DataOptions> = {}): DataOptions => ({
  paths: [path],
  tokenizer,
  rows: 4,
  length: 32,
  blockSize: 4,
  seed: 1,
  ...more,
})

const texts = Array.from({ length: 120 }, (_, i) => ({ text: `${i}:${'x'.repeat((i * 7) % 90)}` }))

describe('openData', () => {
  test('resumes with exactly the next batches, from any point', async () => {
    const path = await dataset('a.jsonl', texts)
    const settings = options(path, { shuffleBuffer: 16, validationFraction: 0.1 })
    const source = await openData(settings)
    const batches = []
    const positions = []
    for (let i = 0; i < 200; i++) {
      positions.push(JSON.stringify(source.position()))
      batches.push(await source.next())
    }
    expect(source.report().epoch).toBeGreaterThan(2)
    for (const at of [0, 1, 17, 60, 61, 120, 199]) {
      const resumed = await openData(settings)
      await resumed.restore(JSON.parse(positions[at]!))
      expect(JSON.stringify(resumed.position())).toBe(positions[at])
      for (let i = at; i < Math.min(at + 20, 200); i++) expect(await resumed.next()).toEqual(batches[i])
      await resumed.close()
    }
    await source.close()
    expect((await validationBatches(settings, 1e6)).length).toBeGreaterThan(0)
  })
})
