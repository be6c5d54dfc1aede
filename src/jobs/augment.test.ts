import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { diffusionFolder, type TestModel, tiny } from '../../test/serve/models.ts'
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { type AugmentOptions, augment, maskSpans } from './augment.ts'

let model: TestModel
let folder: string
beforeAll(async () => {
  model = await diffusionFolder()
  folder = await mkdtemp(join(tmpdir(), 'unmask-augment-'))
})
afterAll(async () => {
  await model.remove()
  await rm(folder, { recursive: true })
})

const rows = [
  { id: 1, text: 'the people of this nation ask for peace and work', label: 'good', tags: ['a'] },
  { id: 2, text: 'the treaty was signed by both governments in the spring', label: 'bad' },
  { id: 3, text: 'we shall meet again next year to count what was done', label: null, nested: { x: 1 } },
]

async function write(name: string, values: readonly unknown[]): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join('\n'))
  return path
}

async function run(data: string, settings: Partial<AugmentOptions> = {}) {
  const out = join(folder, 'out.jsonl')
  const result = await augment({ model: model.path, data, out, force: true, threads: 1, ...settings })
  const text = await readFile(out, 'utf8')
  return {
    result,
    text,
    made: text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as (typeof rows)[number]),
  }
}

test('keeps labels and schema, varies the text, and is a function of the seed', async () => {
  const data = await write('rows.jsonl', rows)
  const { result, made, text } = await run(data, { n: 3, maskRatio: 0.3 })
  expect(result).toMatchObject({ rows: 3, unusable: 0, heldOut: 0, leaks: 0 })
  expect(made.length).toBe(result.written)
  expect(result.written + result.unchanged + result.duplicates).toBe(9)
  expect(result.written).toBeGreaterThan(3)
  for (const row of made) {
    const source = rows.find(({ id }) => id === row.id)!
    expect({ ...row, text: '' }).toEqual({ ...source, text: '' })
    expect(Object.keys(row)).toEqual(Object.keys(source))
    expect(row.text).not.toBe(source.text)
    // Most of it is still there.
    const words = new Set(row.text.split(' '))
    expect(source.text.split(' ').filter((word) => words.has(word)).length).toBeGreaterThan(2)
  }
  expect(new Set(made.map((row) => row.text)).size).toBe(made.length)
  expect((await run(data, { n: 3, maskRatio: 0.3 })).text).toBe(text)
  expect((await run(data, { n: 3, maskRatio: 0.3, seed: 1 })).text).not.toBe(text)
})

test('nothing of held-out rows is varied, nothing that is written comes near them', async () => {
  const data = await write('rows.jsonl', rows)
  const held = await write('held.jsonl', [{ text: 'The TREATY was signed, by both governments in the spring!' }])
  const { result, made } = await run(data, { n: 2, heldOut: [held] })
  expect(result.heldOut).toBe(1)
  expect(made.every(({ id }) => id !== 2)).toBe(true)
  // What was written before, held out: the same fillings are leaks now, and nobody's source.
  const before = await run(data, { n: 2 })
  const later = await run(data, { n: 2, heldOut: [await write('made.jsonl', before.made)], leakWords: 100 })
  expect(later.result.leaks).toBe(before.made.length)
  expect(later.made).toEqual([])
})

test('passes over rows that cannot be used, and says so', async () => {
  const data = await write('odd.jsonl', [rows[0], '{"text": 5}', 'not json', '[]', '{"text":" "}', { text: 'x' }])
  const { result } = await run(data)
  expect(result).toMatchObject({ rows: 6, unusable: 5 })
  await expect(run(data, { field: 'other' })).rejects.toThrow(/no row has a text in the field "other"/)
  await expect(run(data, { maskRatio: 1 })).rejects.toThrow(UserError)
  await expect(run(data, { n: 0 })).rejects.toThrow(UserError)
  await expect(run(data, { model: tiny })).rejects.toThrow(/diffusion model/)
})

test('replaces an output on request only, and never an input', async () => {
  const data = await write('kept.jsonl', rows)
  const held = await write('kept-held.jsonl', rows.slice(0, 1))
  const before = await readFile(data, 'utf8')
  const out = await write('there.jsonl', [{ text: 'mine' }])
  await expect(run(data, { out, force: false })).rejects.toThrow(/there.jsonl: exists already; .*--force/)
  expect(await readFile(out, 'utf8')).toBe('{"text":"mine"}')
  for (const path of [data, held, join(folder, 'new', '..', 'kept.jsonl')])
    await expect(run(join(folder, '{kept,none}.jsonl'), { out: path, heldOut: [held] })).rejects.toThrow(/is an input/)
  expect(await readFile(data, 'utf8')).toBe(before)
})

test('masks as much as was asked for, never the first token', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 200 }),
      fc.double({ min: 0.01, max: 0.99, noNaN: true }),
      fc.double({ min: 1, max: 10, noNaN: true }),
      fc.nat(),
      (length, ratio, span, seed) => {
        const holes = maskSpans(length, ratio, span, random(seed))
        expect(holes.size).toBe(Math.min(length - 1, Math.max(1, Math.round(ratio * length))))
        expect(holes.has(0)).toBe(false)
        expect(Math.max(...holes)).toBeLessThan(length)
      },
    ),
    { seed: 5 },
  )
})
