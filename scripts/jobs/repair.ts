// Makes the data of the job "repair": noisy sentences, to be written clean again. `npx tsx scripts/jobs/repair.ts
// GSM8K_FOLDER [FOLDER] [--train-rows N]` (default runs/jobs/repair, 20,000). GSM8K_FOLDER holds train.jsonl and test.jsonl of
// github.com/openai/grade-school-math, or the same with the prefix `gsm8k-`. Writes train.jsonl, validation.jsonl and
// test-0.jsonl to test-2.jsonl, which are draws of other noise over other sentences. What is held out are whole speeches
// and GSM8K's own test questions. Prints rows and character error rate of each file.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { random } from '../../src/core/random.ts'
import { UserError } from '../../src/core/types.ts'
import { writeJsonl } from '../../src/data/synthetic.ts'
import { characterErrorRate } from '../../src/eval/text-score.ts'
import { addNoise, drawFrom, noiseKinds } from '../../src/tasks/text-noise.ts'
import { gsm8kRows } from '../gsm8k.ts'
import { speeches } from '../tiny/text.ts'

export const INSTRUCTION = 'Correct the errors in this text.'

/** Lengths of sentences, in characters. */
const [SHORTEST, LONGEST] = [40, 220]

const [TRAIN_ROWS, HELD_ROWS, TEST_DRAWS] = [20_000, 200, 3]

/** Rows of training data that the error rate is estimated from. */
const MEASURED_ROWS = 2000

/** Share of the sentences that come in clean: they are to be left alone. */
const CLEAN = 0.05

export interface RepairRow {
  prompt: string
  completion: string
  /** A kind of noise, or `none`. */
  noise: string
}

/** Sentences of both sources. */
export interface Sources {
  speeches: readonly string[]
  questions: readonly string[]
}

/** A sentence with its noise; the same for the same seed and index. */
export function repairRow(clean: string, seed: number, index: number): RepairRow {
  const draw = drawFrom(random(seed, 0x6e6f6973, index))
  const kind = noiseKinds[draw.below(noiseKinds.length)] as (typeof noiseKinds)[number]
  const noise = draw.uniform() < CLEAN ? 'none' : kind
  const noisy = noise === 'none' ? clean : addNoise(clean, kind, draw)
  return { prompt: `${INSTRUCTION}\n${noisy}`, completion: clean, noise }
}

/** The sentences of texts, in plain ASCII, of a length that a row holds. */
export function sentences(texts: readonly string[]): string[] {
  const plain = (text: string) =>
    text
      .replace(/[\u2018\u2019]/g, "'")
      .replace(/[\u201c\u201d]/g, '"')
      .replace(/[\u2013\u2014]/g, '-')
      .replace(/\s+/g, ' ')
  const all = texts.flatMap((text) => plain(text).match(/[A-Z][^.?!]*(?:\.\d[^.?!]*)*[.?!]+/g) ?? [])
  const fits = (text: string) => text.length >= SHORTEST && text.length <= LONGEST && /^[\x20-\x7e]+$/.test(text)
  return [...new Set(all.filter(fits))]
}

/**
 * The rows of each file, by its name. A sentence of the held-out documents that also stands in a training document is left
 * out of training.
 */
export function repairFiles(train: Sources, held: Sources, trainRows = TRAIN_ROWS): Map<string, RepairRow[]> {
  const noisy = (clean: readonly string[], seed: number) => clean.map((text, index) => repairRow(text, seed, index))
  const tests = mixed(held, 1).slice(0, HELD_ROWS * (TEST_DRAWS + 1))
  const part = (index: number) => noisy(tests.slice(index * HELD_ROWS, (index + 1) * HELD_ROWS), index + 1)
  const kept = new Set(tests)
  const clean = mixed(train, 0).filter((text) => !kept.has(text))
  return new Map([
    ['train', noisy(clean.slice(0, trainRows), 0)],
    ['validation', part(0)],
    ...Array.from({ length: TEST_DRAWS }, (_, draw): [string, RepairRow[]] => [`test-${draw}`, part(draw + 1)]),
  ])
}

/** Speeches and questions in turn, both shuffled; each sentence once. */
function mixed({ speeches, questions }: Sources, seed: number): string[] {
  const [a, b] = [random(seed, 1).shuffle([...speeches]), random(seed, 2).shuffle([...questions])]
  const all = Array.from({ length: Math.max(a.length, b.length) }, (_, i) => [a[i], b[i]]).flat()
  return [...new Set(all.filter((text) => text !== undefined))]
}

/** Character error rate of the noisy text, in percent. */
export function noisePercent(rows: readonly RepairRow[]): number {
  const pairs = rows.map(({ prompt, completion }) => ({
    text: prompt.slice(INSTRUCTION.length + 1),
    reference: completion,
  }))
  return 100 * characterErrorRate(pairs).value
}

async function main(source: string, folder: string, trainRows: number): Promise<void> {
  const text = speeches(1000)
  const sources = (speech: string[], name: string): Sources => ({
    speeches: sentences(speech),
    questions: sentences(gsm8kRows(source, name).map(({ question }) => question)),
  })
  const files = repairFiles(sources(text.train, 'train.jsonl'), sources(text.test, 'test.jsonl'), trainRows)
  mkdirSync(folder, { recursive: true })
  for (const [name, rows] of files) {
    await writeJsonl(join(folder, `${name}.jsonl`), rows)
    const kinds = [...noiseKinds, 'none'].map((kind) => {
      const some = rows.filter(({ noise }) => noise === kind)
      return `${kind} ${some.length} (${noisePercent(some.slice(0, MEASURED_ROWS)).toFixed(1)} %)`
    })
    const all = noisePercent(rows.slice(0, MEASURED_ROWS)).toFixed(1)
    console.log(`${name}: ${rows.length} rows, ${all} % of characters wrong: ${kinds.join(', ')}`)
  }
}

if (import.meta.filename === process.argv[1]) {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { 'train-rows': { type: 'string', default: String(TRAIN_ROWS) } },
    })
    const [source, folder = join('runs', 'jobs', 'repair')] = positionals
    const trainRows = Number(values['train-rows'])
    if (source === undefined || !Number.isInteger(trainRows) || trainRows < 1)
      throw new UserError('usage: npx tsx scripts/jobs/repair.ts GSM8K_FOLDER [FOLDER] [--train-rows N]')
    await main(source, folder, trainRows)
  } catch (error) {
    if (!(error instanceof UserError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS'))) throw error
    console.error((error as Error).message)
    process.exitCode = 1
  }
}
