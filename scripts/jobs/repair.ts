// Makes the data of the job "repair": noisy sentences, to be written clean again. `npx tsx scripts/jobs/repair.ts
// GSM8K_FOLDER [FOLDER]` (default runs/jobs/repair). GSM8K_FOLDER holds train.jsonl and test.jsonl of
// github.com/openai/grade-school-math, or the same with the prefix `gsm8k-`. Writes train.jsonl, validation.jsonl and
// test-0.jsonl to test-2.jsonl, which are draws of other noise over other sentences. What is held out are whole speeches
// and GSM8K's own test questions.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { random } from '../../src/core/random.ts'
import { UserError } from '../../src/core/types.ts'
import { writeJsonl } from '../../src/data/synthetic.ts'
import { gsm8kRows } from '../gsm8k.ts'
import { speeches } from '../tiny/text.ts'
import { addNoise, drawFrom, noiseKinds } from './noise.ts'

export const INSTRUCTION = 'Correct the errors in this text.'

/** Lengths of sentences, in characters. */
const [SHORTEST, LONGEST] = [40, 220]

const [TRAIN_ROWS, HELD_ROWS, TEST_DRAWS] = [20_000, 200, 3]

/** Share of the sentences that come in clean: they are to be left alone. */
const CLEAN = 0.05

export interface RepairRow {
  prompt: string
  completion: string
  noise: string
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

/** Speeches and questions in turn, both shuffled, until there are `count`. */
function mixed(speech: readonly string[], questions: readonly string[], count: number, seed: number): string[] {
  const [a, b] = [random(seed, 1).shuffle([...speech]), random(seed, 2).shuffle([...questions])]
  const out: string[] = []
  for (let i = 0; out.length < count && (i < a.length || i < b.length); i++)
    for (const list of [a, b]) if (i < list.length && out.length < count) out.push(list[i] as string)
  return out
}

async function main(source: string, folder: string): Promise<void> {
  const text = speeches(1000)
  const questions = (name: string) => sentences(gsm8kRows(source, name).map(({ question }) => question))
  mkdirSync(folder, { recursive: true })
  const write = async (name: string, clean: readonly string[], seed: number) => {
    const rows = clean.map((sentence, index) => repairRow(sentence, seed, index))
    await writeJsonl(join(folder, `${name}.jsonl`), rows)
    console.log(`${name}: ${rows.length} rows`)
  }
  await write('train', mixed(sentences(text.train), questions('train.jsonl'), TRAIN_ROWS, 0), 0)
  const held = mixed(sentences(text.test), questions('test.jsonl'), HELD_ROWS * (TEST_DRAWS + 1), 1)
  const part = (index: number) => held.slice(index * HELD_ROWS, (index + 1) * HELD_ROWS)
  await write('validation', part(0), 1)
  for (let draw = 0; draw < TEST_DRAWS; draw++) await write(`test-${draw}`, part(draw + 1), draw + 2)
}

if (import.meta.filename === process.argv[1]) {
  try {
    const [source, folder = join('runs', 'jobs', 'repair')] = process.argv.slice(2)
    if (source === undefined) throw new UserError('usage: npx tsx scripts/jobs/repair.ts GSM8K_FOLDER [FOLDER]')
    await main(source, folder)
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    console.error(error.message)
    process.exitCode = 1
  }
}
