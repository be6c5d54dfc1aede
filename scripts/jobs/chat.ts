// Makes prompts for a chat model that nothing was trained for: `npx tsx scripts/jobs/chat.ts GSM8K_FOLDER [FOLDER]` (default
// runs/jobs/chat). questions.jsonl: 100 of GSM8K's test questions. edits.jsonl: 100 requests whose answer repeats much of the
// prompt: speeches to write with a word replaced or in one sentence, code in which to rename something, in turn.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { random } from '../../src/core/random.ts'
import { UserError } from '../../src/core/types.ts'
import { writeJsonl } from '../../src/data/synthetic.ts'
import { gsm8kRows } from '../gsm8k.ts'
import { speeches, typescript } from '../tiny/text.ts'

const ROWS = 100
const SEED = 20

/** Lengths of speeches, in bytes. */
const [SHORTEST, LONGEST] = [250, 450]

/** A request, and the text that its answer would repeat. */
interface ChatRow {
  prompt: string
  completion: string
}

/** A word of at least four letters that stands in a text more than once, the most frequent first. */
function frequentWord(text: string): string | undefined {
  const counts = new Map<string, number>()
  for (const [word] of text.matchAll(/\b[A-Za-z]{4,}\b/g)) counts.set(word, (counts.get(word) ?? 0) + 1)
  const [most] = [...counts].filter(([, count]) => count > 1).sort((a, b) => b[1] - a[1])
  return most?.[0]
}

const replaceWord = (text: string): ChatRow => ({
  prompt: `Write this text again, with "the" replaced by "that" and everything else as it is:\n\n${text}`,
  completion: text,
})

const summarise = (text: string): ChatRow => ({
  prompt: `Summarize this text in one sentence:\n\n${text}`,
  completion: text,
})

const rename = (code: string): ChatRow => {
  const name = frequentWord(code)!
  return {
    prompt: `Rename \`${name}\` to \`${name}2\` in this code, and answer with the code alone:\n\n\`\`\`ts\n${code}\n\`\`\``,
    completion: code,
  }
}

function edits(): ChatRow[] {
  const draw = random(SEED, 0x65646974)
  const fits = (text: string) => text.length >= SHORTEST && /^[\x20-\x7e]+$/.test(text)
  const passages = draw.shuffle(speeches(LONGEST).test.filter(fits))
  const { train, test } = typescript()
  const code = draw.shuffle([...train, ...test].filter((text) => frequentWord(text) !== undefined))
  return Array.from({ length: ROWS }, (_, i) => {
    const kind = i % 3
    if (kind === 2) return rename(code[Math.floor(i / 3)] as string)
    return (kind === 0 ? replaceWord : summarise)(passages[i] as string)
  })
}

async function main(source: string, folder: string): Promise<void> {
  const questions = gsm8kRows(source, 'test.jsonl').slice(0, ROWS)
  mkdirSync(folder, { recursive: true })
  await writeJsonl(
    join(folder, 'questions.jsonl'),
    questions.map(({ question, answer }): ChatRow => ({ prompt: question, completion: answer })),
  )
  await writeJsonl(join(folder, 'edits.jsonl'), edits())
}

const [source, folder = join('runs', 'jobs', 'chat')] = process.argv.slice(2)
if (source === undefined) {
  console.error('usage: npx tsx scripts/jobs/chat.ts GSM8K_FOLDER [FOLDER]')
  process.exitCode = 2
} else
  await main(source, folder).catch((error) => {
    if (!(error instanceof UserError)) throw error
    console.error(error.message)
    process.exitCode = 1
  })
