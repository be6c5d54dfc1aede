// Mending a text: tokens that a model doubts are replaced, where it was trained to correct tokens; or the model writes the text
// anew, where it was trained to do so.
import { edits } from '../core/edit-distance.ts'
import { type ModelConfig, SettingError, UserError } from '../core/types.ts'
import { complete, type DecodingSettings } from '../decode/index.ts'
import { textOf } from '../tokenizer/stream.ts'
import { written } from './assemble.ts'
import type { Generator } from './generator.ts'
import { encodeTexts } from './holes.ts'

export interface RewriteSettings
  extends Pick<DecodingSettings, 'blockSize' | 'threshold' | 'editingThreshold' | 'maxPostSteps'> {
  /** Text before it that is read and stays as it is. */
  keep?: string
  signal?: AbortSignal
}

export interface Rewritten {
  text: string
  /** Tokens of the corrected text. */
  tokens: number
  /** Those of them that were replaced or inserted. */
  changed: number
  /** Tokens of the given text that were left out. */
  deleted: number
  forwards: number
  seconds: number
}

/** Corrects a text. It keeps its number of tokens. Throws UserError for a model that cannot. */
export async function rewriteText(
  generator: Generator,
  text: string,
  { keep = '', ...settings }: RewriteSettings = {},
): Promise<Rewritten> {
  const { tokenizer } = generator
  const blockSize = settings.blockSize ?? generator.blockSize
  const { begin, parts } = encodeTexts([keep, text], tokenizer)
  const [before, given] = parts as number[][]
  const kept = [...begin, ...before]
  const rewriting = generator.rewrite([...kept, ...given], { ...settings, blockSize, from: kept.length })
  const result = await complete(rewriting)
  const ids = result.ids.slice(kept.length)
  return {
    text: textOf(tokenizer, ids, { after: kept }),
    tokens: ids.length,
    changed: ids.filter((id, i) => id !== given[i]).length,
    deleted: 0,
    forwards: result.forwards,
    seconds: result.seconds,
  }
}

/** Key of config.json: how a model is asked for a text without mistakes. `{text}` stands for the text. */
const REWRITE_PROMPT = 'rewrite_prompt'
const TEXT = '{text}'

/** The prompt with which this model writes a text anew; undefined where it has none. Throws UserError where that makes no sense. */
export function rewritePrompt({ config }: { config: ModelConfig }, text: string): string | undefined {
  const prompt = config[REWRITE_PROMPT]
  if (prompt === undefined) return undefined
  if (typeof prompt !== 'string' || !prompt.includes(TEXT))
    throw new UserError(
      `the model's config: ${REWRITE_PROMPT} is ${JSON.stringify(prompt)}; it must be a text with ${TEXT} in it`,
    )
  return prompt.replace(TEXT, () => text)
}

/** Most tokens that a text of so many can become when it is written anew: twice as many, and some. */
export const rewrittenTokens = (tokens: number): number => 2 * tokens + 32

/** Lets a model write the text anew, as an answer to `prompt`. */
export async function rewriteByPrompt(
  generator: Generator,
  text: string,
  prompt: readonly number[],
  { signal, ...others }: RewriteSettings = {},
): Promise<Rewritten> {
  const unread = Object.entries(others).find(([, value]) => value !== undefined)
  if (unread) throw new SettingError(unread[0], 'not read by a model that writes the text anew, as this one does')
  const given = encodeTexts([text], generator.tokenizer).parts[0] as number[]
  const result = await written(generator.write(prompt, { maxNewTokens: rewrittenTokens(given.length), signal }))
  const ids = encodeTexts([result.text], generator.tokenizer).parts[0] as number[]
  const { replaced, inserted, deleted } = edits(given, ids)
  return {
    text: result.text,
    tokens: ids.length,
    changed: replaced + inserted,
    deleted,
    forwards: result.forwards,
    seconds: result.seconds,
  }
}
