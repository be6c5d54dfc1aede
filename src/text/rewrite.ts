// Mending a text: tokens that a model doubts are replaced, where it was trained to correct tokens.
import { complete, type DecodingSettings } from '../decode/index.ts'
import { textOf } from '../tokenizer/stream.ts'
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
  /** Tokens of the text, and those of them that were replaced. */
  tokens: number
  changed: number
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
    forwards: result.forwards,
    seconds: result.seconds,
  }
}
