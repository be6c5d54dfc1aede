// A model's own greedy answers to the prompts of a data set, kept in a file that a second run continues: what an accelerator
// has to guess is this text, not the data's.
import { setMaxListeners } from 'node:events'
import { appendFile, truncate } from 'node:fs/promises'
import { exists, readText } from '../checkpoint/file.ts'
import { UserError } from '../core/types.ts'
import type { Completion } from '../data/completions.ts'
import { type DocumentOptions, readDocuments } from '../data/index.ts'
import { complete } from '../decode/index.ts'
import type { Generator } from '../text/generator.ts'

export interface SelfGenerateOptions {
  generator: Generator
  documents: DocumentOptions
  /** One line per answer: `{"prompt": [ids], "completion": [ids]}`. */
  file: string
  /** Tokens of answers to write, those that the file has already included. */
  tokens: number
  maxNewTokens: number
  /** Most tokens of a prompt; longer ones are passed over. */
  maxPromptTokens: number
  signal?: AbortSignal
  onProgress?: (tokens: number) => void
}

/** Answers that are written at a time: they share forwards. */
const TOGETHER = 32

/** Tokens of a text without a prompt that stand for one. */
const TEXT_PROMPT = 32

/**
 * Writes answers until there are enough, or the prompts have all been used. On abort what is written stays.
 * Throws the signal's reason when aborted.
 */
export async function selfGenerate(options: SelfGenerateOptions): Promise<Completion[]> {
  const { generator, documents, file, tokens, maxNewTokens, maxPromptTokens, signal, onProgress } = options
  const completions = await readCompletions(file)
  if (signal) setMaxListeners(TOGETHER + 10, signal)
  const count = () => completions.reduce((sum, { completion }) => sum + completion.length, 0)
  let waiting: number[][] = []
  const answer = async () => {
    const written = await Promise.all(
      waiting.map(async (prompt): Promise<Completion> => {
        const { ids } = await complete(generator.generate(prompt, { maxNewTokens, signal }))
        return { prompt, completion: ids }
      }),
    )
    waiting = []
    await appendFile(file, written.map((line) => `${JSON.stringify(line)}\n`).join(''))
    completions.push(...written)
    onProgress?.(count())
  }
  let seen = 0
  for await (const { ids, maskable } of readDocuments(documents)) {
    const answered = completions.length + waiting.length
    // Only there, so that a run which was killed in between ends with the same answers.
    if (answered % TOGETHER === 0 && count() >= tokens) break
    const first = maskable.indexOf(1)
    const prompt = [...ids.subarray(0, first > 1 ? first : Math.min(TEXT_PROMPT, ids.length - 1))]
    if (prompt.length === 0 || prompt.length > maxPromptTokens) continue
    // The file holds the answers to the first prompts, in their order.
    if (seen++ < answered) continue
    waiting.push(prompt)
    if ((answered + 1) % TOGETHER === 0) await answer()
  }
  if (waiting.length > 0) await answer()
  return completions
}

/** Reads the file; a last line that a killed run left unfinished is cut off. */
async function readCompletions(file: string): Promise<Completion[]> {
  if (!(await exists(file))) return []
  const text = await readText(file, 2 ** 30)
  const end = text.lastIndexOf('\n') + 1
  if (end < text.length) await truncate(file, new TextEncoder().encode(text.slice(0, end)).length)
  return text
    .slice(0, end)
    .split('\n')
    .filter((line) => line !== '')
    .map((line, i) => parseLine(line, `${file}:${i + 1}`))
}

function parseLine(line: string, place: string): Completion {
  const isIds = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((id) => Number.isSafeInteger(id) && id >= 0)
  let value: Record<string, unknown>
  try {
    value = JSON.parse(line) as Record<string, unknown>
  } catch {
    throw new UserError(`${place}: not JSON; remove the file to write the answers again`)
  }
  const { prompt, completion } = value ?? {}
  if (!isIds(prompt) || !isIds(completion))
    throw new UserError(
      `${place}: prompt and completion must be lists of token ids; remove the file to write them again`,
    )
  return { prompt, completion }
}
