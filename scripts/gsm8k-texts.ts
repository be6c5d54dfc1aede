// Texts of GSM8K for `npm run bench -- quantize`: `npx tsx scripts/gsm8k-texts.ts GSM8K_FOLDER FOLDER`. GSM8K_FOLDER holds
// train.jsonl and test.jsonl of github.com/openai/grade-school-math. Writes test.jsonl, calibration.jsonl (1500 rows of the
// training set), choices.jsonl: questions without and with their last sentence, where that asks something, and choice-rows.jsonl:
// rows of `unmask eval suite` made of it, the true last sentence among three of other questions.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { random } from '../src/core/random.ts'
import { writeJsonl } from '../src/data/synthetic.ts'
import { choiceItems } from '../src/eval/choices.ts'
import { gsm8kRows } from './gsm8k.ts'

const [source, folder] = process.argv.slice(2)
if (source === undefined || folder === undefined) {
  process.stderr.write('usage: npx tsx scripts/gsm8k-texts.ts GSM8K_FOLDER FOLDER\n')
  process.exit(2)
}

type Row = ReturnType<typeof gsm8kRows>[number]
const rows = (name: string): Row[] => gsm8kRows(source, name)
const text = ({ question, answer }: Row) => ({ text: `${question}\n${answer}` })

mkdirSync(folder, { recursive: true })
const test = rows('test.jsonl')
await writeJsonl(join(folder, 'test.jsonl'), test.map(text))
await writeJsonl(join(folder, 'calibration.jsonl'), rows('train.jsonl').slice(0, 1500).map(text))
const choices = test.flatMap(({ question }) => {
  const [, prompt, completion] = /^(.*[.?!])( [^.?!]+\?)$/s.exec(question.trim()) ?? []
  return prompt !== undefined && completion !== undefined ? [{ prompt, completion }] : []
})
await writeJsonl(join(folder, 'choices.jsonl'), choices)
const items = choiceItems(choices, { count: choices.length, alternatives: 3, seed: 0 })
await writeJsonl(
  join(folder, 'choice-rows.jsonl'),
  items.map(({ prompt, choices: [first, ...others] }, i) => {
    const shuffled = random(0, i).shuffle([first as string, ...others])
    return { prompt, choices: shuffled, right: shuffled.indexOf(first as string) }
  }),
)
