// The bytes of UTF-8 text that each token stands for.
import { UserError } from '../core/types.ts'
import type { TokenizerJson } from './files.ts'

const utf8 = new TextEncoder()

export interface TokenBytes {
  /** Undefined for special and unknown ids. */
  bytes(id: number): Uint8Array | undefined
  /** A text is its tokens' bytes in a row; else words are joined by a decoder that looks at their neighbours. */
  inARow: boolean
  /** How many they are; 0 for special and unknown ids. */
  length(id: number): number
  /** Throws UserError where a text is not its tokens' bytes in a row, but for a first space that decoding drops. */
  checkConcatenation(): void
}

/**
 * Follows the decoder that tokenizer.json names: byte-level tokens have one character per byte; SentencePiece writes a space
 * as `▁` and a lone byte as `<0xXX>`; WordPiece continues a word with its prefix and starts one with a space. A space that a
 * tokenizer puts before the first word is counted, although decoding drops it.
 */
export function tokenBytes(
  json: TokenizerJson,
  idToToken: readonly (string | undefined)[],
  added: ReadonlyMap<number, { special: boolean }>,
): TokenBytes {
  const decoders = JSON.stringify(json.decoder ?? null)
  const uses = (type: string) => decoders.includes(`"type":"${type}"`)
  const byteLevel = uses('ByteLevel')
  const byteFallback = uses('ByteFallback')
  const wordPiece = uses('WordPiece')
  const wordPrefix = String((json.decoder as { prefix?: unknown } | null)?.prefix ?? '##')
  const wordEnd = uses('BPEDecoder') ? String((json.decoder as { suffix?: unknown }).suffix ?? '') : ''

  function bytes(id: number): Uint8Array | undefined {
    const token = idToToken[id]
    if (token === undefined) return undefined
    const addedToken = added.get(id)
    if (addedToken !== undefined) return addedToken.special ? undefined : utf8.encode(token)
    if (byteLevel) return fromByteLevel(token)
    if (byteFallback && /^<0x[0-9A-Fa-f]{2}>$/.test(token)) return Uint8Array.of(Number(token.slice(1, -1)))
    if (wordPiece) return utf8.encode(token.startsWith(wordPrefix) ? token.slice(wordPrefix.length) : ` ${token}`)
    const text = wordEnd === '' ? token : token.replaceAll(wordEnd, ' ')
    return utf8.encode(text.replaceAll('▁', ' '))
  }

  const lengths = new Int32Array(idToToken.length).fill(-1)
  const words = json.decoder === null || wordPiece || wordEnd !== ''
  return {
    bytes,
    inARow: !words,
    length(id) {
      if (!(id >= 0 && id < lengths.length)) return 0
      if (lengths[id] === -1) lengths[id] = bytes(id)?.length ?? 0
      return lengths[id]
    },
    checkConcatenation() {
      if (words) throw new UserError('constraints need a byte-level or SentencePiece tokenizer; this one decodes words')
    },
  }
}

/** The characters with which GPT-2 writes bytes: printable Latin-1 for itself, the others from U+0100 on. */
const byteOf = new Map<string, number>()
for (let byte = 0, other = 0x100; byte < 256; byte++) {
  const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
  byteOf.set(String.fromCharCode(printable ? byte : other++), byte)
}

function fromByteLevel(token: string): Uint8Array {
  const bytes = [...token].map((char) => byteOf.get(char))
  return bytes.includes(undefined) ? utf8.encode(token) : Uint8Array.from(bytes as number[])
}
