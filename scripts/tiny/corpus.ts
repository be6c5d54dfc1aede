// Makes the data of the embedded tiny model: `npx tsx scripts/tiny/corpus.ts [FOLDER]` (default runs/tiny/data).
//   base.jsonl        what the autoregressive base is trained on: task rows, speeches, TypeScript
//   convert.jsonl     what conversion needs: task rows and the speeches kept in models/tiny/data
//   validation.jsonl  held out from both: other task rows, other speeches
// `--excerpt` writes the speeches in models/tiny/data instead. The same options give the same bytes.
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { random } from '../../src/core/random.ts'
import { UserError } from '../../src/core/types.ts'
import { mixture, readTexts, writeJsonl } from '../../src/data/synthetic.ts'
import { speeches, typescript } from './text.ts'

const excerpts = join(import.meta.dirname, '..', '..', 'models', 'tiny', 'data')

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: 'string', default: '1' },
    'base-rows': { type: 'string', default: '250000' },
    'convert-rows': { type: 'string', default: '80000' },
    excerpt: { type: 'boolean', default: false },
  },
})

try {
  if (values.excerpt) await writeExcerpts()
  else await writeCorpus(positionals[0] ?? join('runs', 'tiny', 'data'))
} catch (error) {
  if (!(error instanceof UserError)) throw error
  console.error(error.message)
  process.exitCode = 1
}

async function writeCorpus(folder: string): Promise<void> {
  const seed = wholeNumber('seed')
  const baseRows = wholeNumber('base-rows')
  const convertRows = wholeNumber('convert-rows')
  const kept = readExcerpt('speeches.train.jsonl')
  const keptTest = readExcerpt('speeches.test.jsonl')
  mkdirSync(folder, { recursive: true })
  // A piece of text has about seven times the tokens of a task row: 1 in 25 rows is a fifth of the tokens.
  await writeJsonl(
    join(folder, 'base.jsonl'),
    mixture({
      seed,
      taskRows: baseRows,
      textRows: Math.round(baseRows / 25),
      texts: [...speeches().train, ...typescript().train],
    }),
  )
  await writeJsonl(
    join(folder, 'convert.jsonl'),
    mixture({ seed: seed + 1, taskRows: convertRows, textRows: Math.round(convertRows / 50), texts: kept }),
  )
  await writeJsonl(
    join(folder, 'validation.jsonl'),
    mixture({ seed, split: 'test', taskRows: 400, textRows: keptTest.length, texts: keptTest }),
  )
}

/** Pieces drawn at random from all speeches, few enough to be kept in the repository. */
async function writeExcerpts(): Promise<void> {
  mkdirSync(excerpts, { recursive: true })
  const { train, test } = speeches()
  const rows = (texts: string[], count: number) =>
    random(0)
      .shuffle(texts)
      .slice(0, count)
      .map((text) => ({ text }))
  await writeJsonl(join(excerpts, 'speeches.train.jsonl'), rows(train, 1000))
  await writeJsonl(join(excerpts, 'speeches.test.jsonl'), rows(test, 64))
}

function readExcerpt(name: string): string[] {
  const file = join(excerpts, name)
  if (!existsSync(file)) throw new UserError(`${file} is missing; write it with --excerpt`)
  return readTexts(readFileSync(file, 'utf8'), file)
}

function wholeNumber(name: 'seed' | 'base-rows' | 'convert-rows'): number {
  const value = Number(values[name])
  if (Number.isSafeInteger(value) && value >= 0) return value
  throw new UserError(`--${name}: expected a whole number, not ${values[name]}`)
}
