// Texts of GSM8K for `npm run bench -- quantize`: `npx tsx scripts/gsm8k-texts.ts GSM8K_FOLDER FOLDER`. GSM8K_FOLDER holds
// train.jsonl and test.jsonl of github.com/openai/grade-school-math. Writes test.jsonl, calibration.jsonl (1500 rows of the
// training set) and choices.jsonl: questions without and with their last sentence, where that asks something.
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeJsonl } from '../src/data/synthetic.ts'

const [source, folder] = process.argv.slice(2)
if (source === undefined || folder === undefined) {
  process.stderr.write('usage: npx tsx scripts/gsm8k-texts.ts GSM8K_FOLDER FOLDER\n')
  process.exit(2)
}

interface Row {
  question: string
  answer: string
}

const rows = (name: string): Row[] =>
  readFileSync(join(source, name), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Row)
const text = ({ question, answer }: Row) => ({ text: `${question}\n${answer}` })

mkdirSync(folder, { recursive: true })
const test = rows('test.jsonl')
await writeJsonl(join(folder, 'test.jsonl'), test.map(text))
await writeJsonl(join(folder, 'calibration.jsonl'), rows('train.jsonl').slice(0, 1500).map(text))
await writeJsonl(
  join(folder, 'choices.jsonl'),
  test.flatMap(({ question }) => {
    const parts = /^(.*[.?!])( [^.?!]+\?)$/s.exec(question.trim())
    return parts ? [{ prompt: parts[1], completion: parts[2] }] : []
  }),
)
