// The suite from recipe to files, with the embedded model: what is kept, resumed, compared and refused.
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { UserError } from '../core/types.ts'
import { compareRuns } from '../eval/suite/compare.ts'
import { parseRun, type SuiteRun } from '../eval/suite/records.ts'
import { tinyModel } from './quickstart.ts'
import { type SuiteOptions, suite } from './suite.ts'
import { parseSuiteRecipe, type SuiteRecipeInput } from './suite-recipe.ts'

const folder = await mkdtemp(join(tmpdir(), 'unmask-suite-'))
afterAll(() => rm(folder, { recursive: true, force: true }))

const recipe = (name: string, rest: Partial<SuiteRecipeInput> = {}) =>
  parseSuiteRecipe({
    model: tinyModel,
    output_dir: join(folder, name),
    threads: 1,
    tasks: ['add'],
    task_rows: 4,
    ...rest,
  })
const run = (name: string, rest: Partial<SuiteRecipeInput> = {}, more: Partial<SuiteOptions> = {}) =>
  suite({ recipe: recipe(name, rest), yaml: 'model: tiny\n', command: 'unmask eval suite', ...more })
const load = async (path: string): Promise<SuiteRun> => parseRun(path, await readFile(path, 'utf8'))

const own = join(folder, 'own.jsonl')
const rows = ['reverse(stone)=', 'reverse(harbour)=', 'reverse(lantern)='].map((prompt, i) => ({
  ...{ id: `r${i}`, prompt },
  exact: [...prompt.slice(8, -2)].reverse().join(''),
}))
const choices = join(folder, 'choices.jsonl')
await writeFile(own, rows.map((row) => JSON.stringify(row)).join('\n'))
await writeFile(choices, JSON.stringify({ prompt: 'reverse(stone)=', choices: ['stone', 'enots'], right: 1 }))

describe('eval suite', () => {
  it('keeps every answer, figures and a page', async () => {
    const texts = [`speech=${join(import.meta.dirname, '../../test/likelihood/rows.jsonl')}`]
    const { base, comparisons } = await run('whole', {
      ...{
        base: tinyModel,
        tasks: [`words=${own}`, `pick=${choices}`, 'bias-completion?rows=3'],
        noise: ['keyboard'],
        texts,
      },
    })
    const kept = await load(join(folder, 'whole/model.json'))
    const words = kept.tasks.find(({ name }) => name === 'words')!
    expect(words.conditions.map(({ name }) => name)).toEqual(['plain', 'keyboard'])
    expect(words.conditions[0]!.rows[0]).toMatchObject({
      ...{ id: 'r0', prompt: 'reverse(stone)=', reference: 'enots' },
      answers: [{ text: 'enots', scores: { right: 1 }, stop: 'eos', tokens: expect.any(Number) }],
    })
    expect(words.conditions[1]!.rows.map(({ prompt }) => prompt)).not.toEqual(rows.map(({ prompt }) => prompt))
    const pick = kept.tasks.find(({ name }) => name === 'pick')!
    expect(pick.conditions[0]!.rows[0]!.answers[0]).toMatchObject({
      text: '1',
      logprobs: [expect.any(Number), expect.any(Number)],
    })
    expect(kept.domains[0]).toMatchObject({ name: 'speech', exact: true, calibration: { tokens: expect.any(Number) } })
    expect(base!.tasks[0]!.conditions[0]!.rows).toHaveLength(3)
    expect(comparisons!.verdict).toMatch(/^No difference is shown in any of \d comparisons\.$/)
    const page = await readFile(join(folder, 'whole/report.html'), 'utf8')
    for (const text of ['bias-completion', 'speech', 'max_new_tokens', 'reverse(stone)=']) expect(page).toContain(text)
    expect(page).not.toMatch(/<script|https?:\/\/(?!www\.w3\.org)/)
    expect(page).not.toContain(folder)
    expect((await readdir(join(folder, 'whole'))).sort()).toEqual([
      'base.json',
      'model.json',
      'recipe.yaml',
      'report.html',
    ])
    await expect(run('whole')).rejects.toThrow(/holds a run already/)
  }, 60_000)

  it('goes on where it was stopped', async () => {
    const stop = new AbortController()
    const signal = stop.signal
    const onEvent: SuiteOptions['onEvent'] = (event) => {
      if (event.type === 'answers' && event.done === 2) stop.abort()
    }
    await expect(run('stopped', {}, { signal, onEvent })).rejects.toThrow(/abort/i)
    const journal = join(folder, 'stopped/answers.jsonl')
    const lines = (await readFile(journal, 'utf8')).trim().split('\n')
    expect(lines).toHaveLength(2)
    // The second answer was cut while it was written; the first is known by a text that no model would write.
    const first = JSON.parse(lines[0]!) as { key: string; answer: { text: string } }
    first.answer.text = 'kept'
    await writeFile(journal, `${JSON.stringify(first)}\n${lines[1]!.slice(0, 40)}`)
    const { run: done } = await run('stopped', {}, { resume: true })
    await expect(run('stopped', {}, { resume: true })).rejects.toThrow(/is measured already .*--force/)
    const texts = done.tasks[0]!.conditions[0]!.rows.map(({ answers }) => answers[0]!.text)
    expect(texts[0]).toBe('kept')
    expect(texts.slice(1)).toEqual(done.tasks[0]!.conditions[0]!.rows.slice(1).map(({ reference }) => reference))
  }, 60_000)

  it('draws several answers, and estimates pass@k', async () => {
    const { run: drawn } = await run('samples', { tasks: ['add?rows=2'], samples: 2, decode: { temperature: 1 } })
    expect(drawn.tasks[0]!.conditions[0]!.rows.map(({ answers }) => answers.length)).toEqual([2, 2])
    expect(() => recipe('x', { samples: 2 })).toThrow(/without a temperature/)
  }, 60_000)

  it('names the row that a model cannot take', async () => {
    const long = join(folder, 'long.jsonl')
    await writeFile(long, JSON.stringify({ id: 'big', prompt: 'word '.repeat(20_000), exact: 'x' }))
    await expect(run('long', { tasks: [`long=${long}`] })).rejects.toThrow(/^long, row big: /)
  }, 60_000)

  it.each([
    [{ tasks: ['words=/nowhere.jsonl'] }, /nowhere\.jsonl: cannot be read/],
    [{ tasks: ['add', 'add?rows=2'] }, /add is named twice/],
    [{ tasks: [], texts: [] }, /nothing to measure/],
    [{ tasks: ['gsm8k'] }, /needs a file/],
    [{ texts: ['nothing'] }, /must be NAME=PATH/],
  ] as const)('refuses %j, and leaves nothing behind', async (wrong, message) => {
    await expect((async () => run('wrong', wrong as unknown as Partial<SuiteRecipeInput>))()).rejects.toThrow(message)
    expect(await readdir(folder)).not.toContain('wrong')
  })
})

describe('compareRuns', () => {
  const made = (right: readonly number[], nats = 10): SuiteRun => ({
    ...{ format: 'unmask-eval-1', created: '', command: '', versions: {}, machine: {}, settings: {} },
    model: { source: 'm', name: 'm', mode: 'ar', blockSize: 1, parameters: 1 },
    tasks: [
      {
        ...{ name: 't', settings: {}, metrics: ['right'], better: 'higher' },
        conditions: [
          {
            name: 'plain',
            rows: right.map((value, i) => ({
              ...{ id: String(i), prompt: '' },
              answers: [{ text: '', seconds: 1, scores: { right: value } }],
            })),
          },
        ],
      },
    ],
    domains: [
      { name: 'd', exact: true, rows: [1, 2, 3].map((i) => ({ nats: nats + i, stderr: 0, tokens: 4, bytes: 8 })) },
    ],
  })
  const good = Array.from({ length: 60 }, () => 1)
  const bad = good.map((_, i) => Number(i >= 12))

  it('names what is worse and better, and leaves a margin', () => {
    const worse = compareRuns(made(good), made(bad))
    expect(worse).toMatchObject({
      regressions: 1,
      verdict: 'The second is worse in 1 of 2 comparisons; in the rest no difference is shown.',
    })
    expect(worse.comparisons[0]!.sentence).toMatch(
      /^t \(right\): worse: 100\.0 → 80\.0, −20\.0 points \(−\d+\.\d to −\d+\.\d at 95 %\), p < 0\.001, McNemar, 60 rows$/,
    )
    expect(compareRuns(made(good), made(bad), { margin: 25 }).regressions).toBe(0)
    expect(compareRuns(made(bad), made(good))).toMatchObject({
      regressions: 0,
      comparisons: [{ verdict: 'better' }, {}],
    })
    expect(compareRuns(made(good), made(good))).toMatchObject({
      regressions: 0,
      verdict: 'No difference is shown in any of 2 comparisons.',
    })
  })

  it('says plainly what a single comparison shows', () => {
    const single = (right: readonly number[]) => ({ ...made(right), domains: [] })
    expect(compareRuns(single(good), single(good)).verdict).toBe('No difference is shown.')
    expect(compareRuns(single(good), single(bad)).verdict).toBe('The second is worse in 1 of 1 comparison.')
  })

  it('takes one half for the best of a bias', () => {
    const biased = (right: readonly number[]) => {
      const all = made(right)
      all.tasks[0]!.better = 'half'
      return all
    }
    const half = good.map((_, i) => i % 2)
    expect(compareRuns(biased(half), biased(good.map(() => 0))).comparisons[0]!.verdict).toBe('worse')
    expect(compareRuns(biased(good), biased(half)).comparisons[0]!.verdict).toBe('better')
  })

  it('pairs rows by name, and says what it leaves out', () => {
    const { comparisons, left } = compareRuns(made(good), made(good.slice(0, 50)))
    expect(comparisons[0]!.result.rows).toBe(50)
    expect(left).toEqual(['t: 10 rows that only one run has'])
    const other = made(good)
    other.domains[0]!.rows.pop()
    expect(compareRuns(made(good), other).left).toEqual([
      'd: the texts are cut into other rows, so they cannot be paired',
    ])
  })

  it('reads any text as a run, or says what is wrong', () => {
    expect(() => parseRun('f', '{}')).toThrow(/f: is no run of `unmask eval suite`: format/)
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        try {
          parseRun('f', text)
        } catch (error) {
          expect(error).toBeInstanceOf(UserError)
        }
      }),
    )
    expect(parseRun('f', JSON.stringify(made(good))).tasks).toHaveLength(1)
  })
})
