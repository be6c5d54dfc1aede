// Text of tokens that arrive one after the other. It only grows: what a token adds is made of its bytes, or, for tokenizers
// that join words, of a few tokens decoded again. Uses no Node API.
import type { Tokenizer } from './types.ts'

/** What a stream needs of a tokenizer. */
export type TextOfTokens = Pick<Tokenizer, 'textIsBytes' | 'bytesOf' | 'dropsSpace' | 'decode' | 'idToToken'>

export interface StreamOptions {
  /** The tokens that the text continues. Default none: it begins a text. */
  after?: ArrayLike<number>
  /** Special tokens are left out, or written by their names. Default `left out`. */
  special?: 'left out' | 'written'
}

/** What a token adds: its bytes, and the characters that they complete. */
export interface TextPiece {
  text: string
  bytes: Uint8Array
}

export interface TextStream {
  push(token: number): TextPiece
  /** What is left: the beginning of a character that never became whole, as U+FFFD. */
  end(): string
}

export function createTextStream(tokenizer: TextOfTokens, options: StreamOptions = {}): TextStream {
  return tokenizer.textIsBytes ? byteStream(tokenizer, options) : wordStream(tokenizer, options)
}

/** The text of tokens, as a stream of them gives it. */
export function textOf(tokenizer: TextOfTokens, ids: ArrayLike<number>, options?: StreamOptions): string {
  const stream = createTextStream(tokenizer, options)
  let text = ''
  for (let i = 0; i < ids.length; i++) text += stream.push(ids[i]).text
  return text + stream.end()
}

/**
 * The text of one token, its spaces included: the name of a special token, `token_id:N` of an id without a name, and where the
 * token is no whole character its bytes as OpenAI writes them (`bytes:\xe2\x82`), or U+FFFD. `bytes` are those that it has
 * in a text, where they may be without the first space.
 */
export function tokenText(
  { bytesOf, idToToken }: TextOfTokens,
  id: number,
  { bytes = bytesOf(id), partial = 'bytes' }: { bytes?: Uint8Array; partial?: 'bytes' | 'replaced' } = {},
): string {
  if (partial === 'replaced' && bytes) return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
  if (!bytes) return idToToken(id) ?? `token_id:${id}`
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`
  }
}

const utf8 = new TextEncoder()
const NOTHING: TextPiece = { text: '', bytes: new Uint8Array() }

function byteStream(
  { bytesOf, dropsSpace, idToToken }: TextOfTokens,
  { after = [], special = 'left out' }: StreamOptions,
): TextStream {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  let drops = dropsSpace(after)
  return {
    push(token) {
      const bytes = bytesOf(token)
      const own = drops && bytes?.[0] === 0x20 ? bytes.subarray(1) : bytes
      drops = dropsSpace([token])
      if (own) return { text: decoder.decode(own, { stream: true }), bytes: own }
      if (special === 'left out') return NOTHING
      const name = idToToken(token) ?? ''
      return { text: decoder.decode() + name, bytes: utf8.encode(name) }
    },
    end: () => decoder.decode(),
  }
}

/** Tokens before the next one that may decide on how it is written. */
const CONTEXT = 4

function wordStream({ decode }: TextOfTokens, { after = [], special = 'left out' }: StreamOptions): TextStream {
  const textOfIds = (ids: number[]) =>
    ids.length === 0 ? '' : decode(ids, { skipSpecialTokens: special === 'left out' })
  /** Tokens whose text has been given, of which the last few are kept, and those behind them. */
  let given = Array.from(after).slice(-CONTEXT)
  let waiting: number[] = []
  const take = (whole: boolean): string => {
    const before = textOfIds(given)
    const now = textOfIds([...given, ...waiting])
    if (!whole && (now.length <= before.length || now.endsWith('\ufffd'))) return ''
    if (waiting.length > 0) given = waiting.slice(-CONTEXT)
    waiting = []
    return now.slice(before.length)
  }
  return {
    push(token) {
      waiting.push(token)
      const text = take(false)
      return { text, bytes: utf8.encode(text) }
    },
    end: () => take(true),
  }
}
