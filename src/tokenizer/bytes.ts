// How many bytes of UTF-8 text each token stands for: the denominator of bits per byte.
import type { TokenizerJson } from './files.ts'

const utf8 = new TextEncoder()

/**
 * A function from token id to bytes; special and unknown ids give 0. Follows the decoder that tokenizer.json names:
 * byte-level tokens have one character per byte; SentencePiece writes a space as `▁` and a lone byte as `<0xXX>`;
 * WordPiece continues a word with its prefix and starts one with a space. A space that a tokenizer puts before the
 * first word is counted, although decoding drops it.
 */
export function byteCounter(
  json: TokenizerJson,
  idToToken: readonly (string | undefined)[],
  added: ReadonlyMap<number, { special: boolean }>,
): (id: number) => number {
  const decoders = JSON.stringify(json.decoder ?? null)
  const uses = (type: string) => decoders.includes(`"type":"${type}"`)
  const byteLevel = uses('ByteLevel')
  const byteFallback = uses('ByteFallback')
  const wordPiece = uses('WordPiece')
  const wordPrefix = String((json.decoder as { prefix?: unknown } | null)?.prefix ?? '##')
  const wordEnd = uses('BPEDecoder') ? String((json.decoder as { suffix?: unknown }).suffix ?? '') : ''

  function measure(id: number): number {
    const token = idToToken[id]
    if (token === undefined) return 0
    const addedToken = added.get(id)
    if (addedToken !== undefined) return addedToken.special ? 0 : utf8.encode(token).length
    if (byteLevel) return [...token].length
    if (byteFallback && /^<0x[0-9A-Fa-f]{2}>$/.test(token)) return 1
    if (wordPiece) {
      return utf8.encode(token.startsWith(wordPrefix) ? token.slice(wordPrefix.length) : ` ${token}`).length
    }
    const text = wordEnd === '' ? token : token.replaceAll(wordEnd, ' ')
    return utf8.encode(text.replaceAll('▁', ' ')).length
  }

  const known = new Int32Array(idToToken.length).fill(-1)
  return (id) => {
    if (!(id >= 0 && id < known.length)) return 0
    if (known[id] === -1) known[id] = measure(id)
    return known[id]!
  }
}
