// Texts with holes as tokens, and back: the texts are encoded as one, and stand in the result as they were written.
import { encodePrompt } from '../data/document.ts'
import { textOf } from '../tokenizer/stream.ts'
import type { Tokenizer } from '../tokenizer/types.ts'

/** Tokens of the texts between holes. */
export interface EncodedParts {
  /** What stands before every text (BOS), or nothing. */
  begin: readonly number[]
  /** By part: the ids of a text; undefined for a hole. */
  parts: (readonly number[] | undefined)[]
}

export interface Layout {
  ids: number[]
  /** Where each part stands in `ids`. */
  spans: { start: number; end: number }[]
}

/** Encodes the texts among `parts` as one text with holes in it. Names of special tokens in them are text. */
export function encodeTexts(parts: readonly unknown[], tokenizer: Tokenizer): EncodedParts {
  const texts = parts.filter((part) => typeof part === 'string')
  const continues = typeof parts[0] !== 'string'
  const encoded = tokenizer.encodeParts(texts, { special: 'text', continues }).values()
  return {
    begin: encodePrompt('', tokenizer, { template: 'plain', separator: '' }),
    parts: parts.map((part) => (typeof part === 'string' ? encoded.next().value : undefined)),
  }
}

/** Puts masks into the holes, as many as `sizeOf` says of each. */
export function layOut({ begin, parts }: EncodedParts, mask: number, sizeOf: (part: number) => number): Layout {
  const ids = [...begin]
  const spans = parts.map((part, i) => {
    const start = ids.length
    // One by one: arguments of a call are limited.
    if (part) for (const id of part) ids.push(id)
    else for (let n = sizeOf(i); n > 0; n--) ids.push(mask)
    return { start, end: ids.length }
  })
  return { ids, spans }
}

/** The text that fills a hole: that of its tokens, behind those before it. */
export function holeText(
  ids: readonly number[],
  { start, end }: Layout['spans'][number],
  tokenizer: Tokenizer,
): string {
  return textOf(tokenizer, ids.slice(start, end), { after: ids.slice(0, start) })
}
