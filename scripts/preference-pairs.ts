// Preference pairs for `unmask dpo`: train.jsonl and test.jsonl, of other prompts, with one pair for a prompt.
//
//   npx tsx scripts/preference-pairs.ts gsm8k GSM8K_FOLDER FOLDER [SEED [LONGEST]]
//   npx tsx scripts/preference-pairs.ts tasks FOLDER [SEED]
//
// gsm8k: a right and a wrong solution of one question, from example_model_solutions.jsonl of
// github.com/openai/grade-school-math (the name may have the prefix `gsm8k-`); a fifth of the questions is for the test.
// Pairs in which a question with its solution has more than LONGEST characters are left out.
// tasks: the right answer to a prompt of the embedded model's tasks, and the same with one character replaced.
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Random, random } from '../src/core/random.ts'
import { writeJsonl } from '../src/data/synthetic.ts'
import { type Split, taskRows } from '../src/tasks/index.ts'

interface PairRow {
  prompt: string
  chosen: string
  rejected: string
}

const [kind, ...rest] = process.argv.slice(2)
const [source, folder, seed] = kind === 'gsm8k' ? [rest[0], rest[1], rest[2]] : [undefined, rest[0], rest[1]]
if ((kind !== 'gsm8k' && kind !== 'tasks') || folder === undefined) {
  process.stderr.write(
    'usage: npx tsx scripts/preference-pairs.ts gsm8k GSM8K_FOLDER FOLDER [SEED [LONGEST]] | tasks FOLDER [SEED]\n',
  )
  process.exit(2)
}
const draw = random(Number(seed ?? 0), 0x7072)
const { train, test } =
  source === undefined ? ofTasks(draw) : ofGsm8k(source, draw, Number(rest[3] ?? Number.POSITIVE_INFINITY))
mkdirSync(folder, { recursive: true })
await writeJsonl(join(folder, 'train.jsonl'), train)
await writeJsonl(join(folder, 'test.jsonl'), test)
const shorter = test.filter(({ chosen, rejected }) => chosen.length < rejected.length).length
process.stdout.write(
  `${train.length} pairs to train on, ${test.length} held out; the chosen answer is the shorter one in ${shorter} of these\n`,
)

function ofGsm8k(folder: string, draw: Random, longest: number): { train: PairRow[]; test: PairRow[] } {
  const name = 'example_model_solutions.jsonl'
  const file = [join(folder, name), join(folder, `gsm8k-${name}`)].find((path) => existsSync(path))
  if (file === undefined) throw new Error(`${join(folder, name)} is missing; download it from grade-school-math`)
  const pairs: PairRow[] = []
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (line === '') continue
    const { question, ground_truth: _, ...models } = JSON.parse(line) as Record<string, unknown> & { question: string }
    const solutions = Object.values(models) as { is_correct: boolean; solution: string }[]
    // What stands in << >> was written by a calculator.
    const texts = (isRight: boolean) =>
      solutions
        .filter(({ is_correct }) => is_correct === isRight)
        .map(({ solution }) => solution.replace(/<<[^>]*>>/g, '').trim())
    const [right, wrong] = [texts(true), texts(false)]
    if (right.length === 0 || wrong.length === 0) continue
    const one = (texts: string[]) => texts[draw.integer(texts.length)]!
    const [chosen, rejected] = [one(right), one(wrong)]
    if (question.length + Math.max(chosen.length, rejected.length) <= longest)
      pairs.push({ prompt: question, chosen, rejected })
  }
  draw.shuffle(pairs)
  const held = Math.round(pairs.length / 5)
  return { train: pairs.slice(held), test: pairs.slice(0, held) }
}

function ofTasks(draw: Random): { train: PairRow[]; test: PairRow[] } {
  const rows = (split: Split, count: number) =>
    Array.from(taskRows({ seed: draw.uint32(), count, split }), ({ prompt, completion }) => ({
      ...{ prompt, chosen: completion },
      rejected: spoiled(completion, draw),
    }))
  return { train: rows('train', 1200), test: rows('test', 200) }
}

/** The text with one character replaced by another of it, or by the next one where it has only one. */
function spoiled(text: string, draw: Random): string {
  const at = draw.integer(text.length)
  const others = [...new Set(text)].filter((character) => character !== text[at])
  const other = others.length > 0 ? others[draw.integer(others.length)]! : String.fromCharCode(text.charCodeAt(at) + 1)
  return text.slice(0, at) + other + text.slice(at + 1)
}
