import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { splitOf } from '../tasks/index.ts'
import { mixture, readTexts, writeJsonl } from './synthetic.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'synthetic-'))
})
afterAll(() => rm(folder, { recursive: true }))

const count = fc.integer({ min: 0, max: 60 })

describe('mixture', () => {
  it('gives the asked number of rows, the same every time, spread evenly', () => {
    fc.assert(
      fc.property(count, count, fc.integer({ min: 0, max: 1000 }), (taskRows, textRows, seed) => {
        const options = { seed, taskRows, textRows, texts: ['a', 'b', 'c'] }
        const rows = [...mixture(options)]
        expect(rows).toEqual([...mixture(options)])
        const texts = rows.map((row) => 'text' in row)
        expect(texts.filter(Boolean).length).toBe(textRows)
        expect(texts.length).toBe(taskRows + textRows)
        const firstHalf = texts.slice(0, texts.length >> 1).filter(Boolean).length
        expect(Math.abs(firstHalf - textRows / 2)).toBeLessThanOrEqual(1.5)
      }),
    )
  })

  it('uses every text before it uses one again', () => {
    const texts = ['a', 'b', 'c', 'd']
    const drawn = [...mixture({ seed: 5, taskRows: 3, textRows: 8, texts })].flatMap((row) =>
      'text' in row ? [row.text] : [],
    )
    expect(drawn.slice(0, 4).sort()).toEqual(texts)
    expect(drawn.slice(4).sort()).toEqual(texts)
  })

  it('keeps to its side of the split and to its tasks', () => {
    for (const row of mixture({ seed: 1, taskRows: 100, split: 'test', tasks: ['sort', 'add'] })) {
      if (!('prompt' in row)) throw new Error('no text was asked for')
      expect(row.prompt).toMatch(/^(sort|add)\(/)
      expect(splitOf(row.prompt)).toBe('test')
    }
  })

  it('says that there is no text', () => {
    expect(() => [...mixture({ seed: 1, taskRows: 1, textRows: 2 })]).toThrow('2 text rows are asked for')
  })
})

describe('writeJsonl and readTexts', () => {
  it('give back what was written and leave nothing else behind', async () => {
    const file = join(folder, 'texts.jsonl')
    const texts = ['one', 'two\nlines', '\u{1f600}"\\']
    await writeJsonl(
      file,
      texts.map((text) => ({ text })),
    )
    expect(readTexts(await readFile(file, 'utf8'), file)).toEqual(texts)
    expect(await readdir(folder)).toEqual(['texts.jsonl'])
  })

  it('name the line that is wrong', () => {
    expect(() => readTexts('{"text":"a"}\n\n{"text":1}\n', 'x.jsonl')).toThrow('x.jsonl:3: expected a row such as')
    expect(() => readTexts('{', 'x.jsonl')).toThrow('x.jsonl:1: ')
  })
})
