// Makes the data of recipes/smollm2-gsm8k-sotu.yaml: `npx tsx scripts/smollm2-corpus.ts GSM8K_FOLDER [FOLDER]` (default
// runs/smollm2/data). GSM8K_FOLDER holds train.jsonl and test.jsonl of github.com/openai/grade-school-math, or the same
// with the prefix `gsm8k-`. Writes train.jsonl and validation.jsonl, questions and speeches alternating.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { random } from '../src/core/random.ts'
import { UserError } from '../src/core/types.ts'
import { writeJsonl } from '../src/data/synthetic.ts'
import { gsm8kRows } from './gsm8k.ts'
import { speeches } from './tiny/text.ts'

/** About 220 tokens of a vocabulary of words: with EOS, less than a row of 256. */
const MAX_BYTES = 1000

try {
  const [source, folder = join('runs', 'smollm2', 'data')] = process.argv.slice(2)
  if (source === undefined) throw new UserError('usage: npx tsx scripts/smollm2-corpus.ts GSM8K_FOLDER [FOLDER]')
  const text = speeches(MAX_BYTES)
  mkdirSync(folder, { recursive: true })
  await writeJsonl(join(folder, 'train.jsonl'), alternate(questions(source, 'train.jsonl'), text.train))
  await writeJsonl(join(folder, 'validation.jsonl'), alternate(questions(source, 'test.jsonl'), text.test))
} catch (error) {
  if (!(error instanceof UserError)) throw error
  console.error(error.message)
  process.exitCode = 1
}

/** Rows and texts in turn, both shuffled, until one of them has run out. */
function* alternate(rows: object[], texts: string[]): Generator<object> {
  const shuffled = random(0).shuffle([...texts])
  for (const [i, row] of random(1)
    .shuffle([...rows])
    .entries()) {
    if (i >= shuffled.length) return
    yield row
    yield { text: shuffled[i]! }
  }
}

function questions(folder: string, name: string): object[] {
  return gsm8kRows(folder, name).map(({ question, answer }) => ({ prompt: question, completion: answer }))
}
