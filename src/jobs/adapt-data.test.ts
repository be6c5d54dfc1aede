import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createNearIndex, signatureOf, similarity } from '../data/near-duplicates.ts'
import { prepareData } from './adapt-data.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-adapt-'))
})
afterAll(() => rm(folder, { recursive: true }))

const words = Array.from({ length: 400 }, (_, i) => `word${i}`)
/** A text of `count` words that depends on a number alone. */
const textOf = (seed: number, count = 60) =>
  Array.from(
    { length: count },
    (_, i) => words[(Math.imul((seed + 1) * 1009 + i, 0x9e3779b1) >>> 8) % words.length],
  ).join(' ')

describe('signatures', () => {
  it('estimate the Jaccard index of runs of five words', () => {
    const runs = (text: string) => {
      const list = text.split(' ')
      return new Set(list.slice(0, list.length - 4).map((_, i) => list.slice(i, i + 5).join(' ')))
    }
    for (const changed of [1, 3, 8, 20]) {
      const a = Array.from({ length: 200 }, (_, i) => `w${i}`)
      const b = a.map((word, i) => (i % Math.floor(200 / changed) === 5 ? `other${i}` : word))
      const [x, y] = [runs(a.join(' ')), runs(b.join(' '))]
      const both = [...x].filter((run) => y.has(run)).length
      const exact = both / (x.size + y.size - both)
      // The standard deviation of a mean of 128 is at most 0.044.
      expect(Math.abs(similarity(signatureOf(a.join(' ')), signatureOf(b.join(' '))) - exact)).toBeLessThan(0.14)
    }
  })

  it('are the same for any case, marks and spacing, and defined for any text', () => {
    expect(signatureOf('Hello,  World!')).toEqual(signatureOf('hello world'))
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
        const index = createNearIndex<number>()
        index.add(1, text)
        expect(index.nearest(text, 1)).toEqual({ id: 1, similarity: 1 })
      }),
    )
  })
})

describe('prepareData', () => {
  const write = async (name: string, rows: readonly object[]) => {
    const path = join(folder, name)
    await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
    return path
  }
  const options = (data: string, evaluation: string[], out = 'out') => ({
    ...{ data: [data], evaluationSets: evaluation, columns: {}, validationFraction: 0.2, similarity: 0.8 },
    folder: join(folder, out),
  })

  it('finds every leak that was planted, exact and near, and nothing else', async () => {
    const evaluation = Array.from({ length: 40 }, (_, i) => textOf(i + 1000))
    const clean = Array.from({ length: 300 }, (_, i) => ({ text: textOf(i) }))
    const planted = [
      ...evaluation.slice(0, 10).map((text) => ({ text: text.toUpperCase().replaceAll(' ', ',  ') })),
      // Two words changed of 60: 46 of 66 runs are common at least where they are apart; at an end more.
      ...evaluation.slice(10, 20).map((text) => ({ text: `${text.split(' ').slice(0, -1).join(' ')} changed` })),
    ]
    const data = await write('planted.jsonl', [...clean, ...planted, clean[0]!, { nothing: 1 }])
    const sets = await write(
      'evaluation.jsonl',
      evaluation.map((text) => ({ text })),
    )
    const { rows, leaks, bad, train, validation } = await prepareData(options(data, [sets]))
    expect(rows).toMatchObject({ read: 321, bad: 1, duplicates: 1, leaks: 20 })
    expect(leaks.map(({ row }) => row)).toEqual(planted.map((_, i) => `${data}:${301 + i}`))
    expect(leaks.map(({ evaluation }) => evaluation)).toEqual(planted.map((_, i) => `${sets}:${i + 1}`))
    expect(leaks.slice(0, 10).every(({ similarity }) => similarity === 1)).toBe(true)
    expect(bad[0]).toContain(`${data}:322: no "messages"`)
    const written = [train, validation].map(async (path) => (await readFile(path, 'utf8')).trim().split('\n').length)
    expect(await Promise.all(written)).toEqual([rows.train, rows.validation])
    expect(rows.train + rows.validation + rows.nearValidation).toBe(300)
  })

  it('leaves out a question that is asked in an evaluation set, whatever the answer', async () => {
    const rows = Array.from({ length: 40 }, (_, i) => ({ prompt: `add(${i},1)=`, completion: `${i + 1}` }))
    const data = await write('asked.jsonl', rows)
    const sets = await write('asked-evaluation.jsonl', [{ prompt: 'add(7,1)=', completion: 'eight' }])
    const { leaks } = await prepareData(options(data, [sets], 'asked'))
    expect(leaks).toEqual([{ row: `${data}:8`, evaluation: `${sets}:1`, similarity: 1 }])
  })

  it('refuses an evaluation set among the data, and data that are nothing else', async () => {
    const data = await write('whole.jsonl', [{ text: 'a b c' }, { text: 'd e f' }])
    await expect(prepareData(options(data, [data]))).rejects.toThrow(/whole\.jsonl: is the evaluation set whole\.jsonl/)
    const sets = await write('wider.jsonl', [{ text: 'A b c' }, { text: 'd e f' }, { text: 'g h i' }])
    await expect(prepareData(options(data, [sets]))).rejects.toThrow(
      /every row of the data stands in an evaluation set/,
    )
    const one = await write('one.jsonl', [{ text: 'a b c' }])
    await expect(prepareData(options(one, [], 'none'))).rejects.toThrow(/of 1 rows .*--validation-fraction/)
    const wrong = await write('wrong.jsonl', [{ question: 1 }])
    await expect(prepareData(options(data, [wrong]))).rejects.toThrow(/wrong\.jsonl:1: no "messages"/)
    await expect(prepareData(options(wrong, []))).rejects.toThrow(
      /wrong\.jsonl: none of 1 rows can be used; the first: .*wrong\.jsonl:1: no "messages"/,
    )
    await expect(prepareData(options(await write('nothing.jsonl', []), []))).rejects.toThrow(/nothing\.jsonl: no rows/)
  })
})
