// Builds the tokenizer of @huggingface/tokenizers so that it does what the Rust library does, at the speed it can have.
// Everything that works around that library is here.
import { Tokenizer } from '@huggingface/tokenizers'
import { UserError } from '../core/types.ts'
import { isObject, type Json, type TokenizerJson } from './files.ts'

/** What unmask uses of the library's tokenizer; its own declarations do not resolve under Node's module rules. */
export interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] }
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string
  token_to_id(token: string): number | undefined
  get_vocab(): Map<string | undefined, number>
  get_added_tokens_decoder(): Map<number, AddedToken>
  model: { cache?: object; bpe_ranks?: Map<string, number>; unk_token_id?: number }
  post_processor: ((tokens: string[], pair: null, addSpecialTokens: boolean) => { tokens: string[] }) | null
  decoder: LibraryDecoder | null
}

export interface AddedToken {
  id: number
  content: string
  special: boolean
  /** Found in normalised text. */
  normalized: boolean
  /** Takes the space before it, or behind it. */
  lstrip: boolean
  rstrip: boolean
}

interface LibraryDecoder {
  config: { type: string }
  decoders?: LibraryDecoder[]
  text_decoder?: InstanceType<typeof TextDecoder>
}

export interface LibraryTokenizers {
  whole: LibraryTokenizer
  /** Encode text without special tokens and without others that are found before it is normalised. */
  start: LibraryTokenizer
  /** The same for text that continues another: without the space that a tokenizer puts before a text. */
  inside: LibraryTokenizer
}

/** The library's tokenizers for checked files; UserError where it cannot use them. They share one vocabulary. */
export function createLibraryTokenizers(json: TokenizerJson, config: Json): LibraryTokenizers {
  let tokenizer: LibraryTokenizer
  const independent = wordsAreIndependent(json.model)
  const { merges } = json.model
  const isBpe = json.model.type === 'BPE' && Array.isArray(merges)
  try {
    const model = isBpe ? { ...json.model, merges: [] } : json.model
    tokenizer = new Tokenizer({ ...forLibrary(json, independent), model }, config)
    if (isBpe) rankMerges(merges, tokenizer.model.bpe_ranks!)
  } catch (error) {
    throw new UserError(`tokenizer.json cannot be used: ${error instanceof Error ? error.message : error}`)
  }
  tellFaults(tokenizer)
  // Its LRU cache deletes and sets a Map entry on every hit, which takes longer than the rest of the encoding.
  if (tokenizer.model.cache) Object.assign(tokenizer.model.cache, wordCache<string[]>())
  for (const part of tokenizer.decoder?.decoders ?? [tokenizer.decoder]) {
    if (part?.config.type === 'ByteFallback') part.text_decoder = new ByteRunDecoder()
  }
  const added = [...tokenizer.get_added_tokens_decoder().values()].filter((token) => token.normalized && !token.special)
  const textEncoder = (source: TokenizerJson): LibraryTokenizer => {
    const empty = { type: 'BPE', vocab: {}, merges: [] }
    const text: LibraryTokenizer = new Tokenizer(
      { ...forLibrary(source, independent), model: empty, added_tokens: added, post_processor: null },
      config,
    )
    return tellFaults(Object.assign(text, { model: tokenizer.model }))
  }
  const { normalizer, pre_tokenizer: preTokenizer } = json
  return {
    whole: tokenizer,
    start: textEncoder(json),
    inside: textEncoder({
      ...json,
      normalizer: withoutPrefix(normalizer),
      pre_tokenizer: withoutPrefix(preTokenizer),
    }),
  }
}

/** What the library cannot do with a file that it accepted is an error of that file. */
function tellFaults(tokenizer: LibraryTokenizer): LibraryTokenizer {
  const telling =
    <A extends unknown[], R>(work: (...given: A) => R) =>
    (...given: A): R => {
      try {
        return work(...given)
      } catch (error) {
        throw new UserError(
          `tokenizer.json cannot be used: ${error instanceof Error ? error.message.slice(0, 200) : error}`,
        )
      }
    }
  const { post_processor: process } = tokenizer
  return Object.assign(tokenizer, {
    encode: telling(tokenizer.encode.bind(tokenizer)),
    decode: telling(tokenizer.decode.bind(tokenizer)),
    ...(process ? { post_processor: telling(process) } : {}),
  })
}

/** Whether a space is put before every text, before every text between added tokens, or before none. */
export type Prefix = 'none' | 'once' | 'every'

export function prefixOf(json: TokenizerJson): Prefix {
  const steps = [...stepsOf(json.normalizer), ...stepsOf(json.pre_tokenizer)]
  const has = (type: string, scheme?: string) =>
    steps.some((step) => step.type === type && (step.prepend_scheme ?? 'always') === (scheme ?? 'always'))
  if (has('Prepend') || has('Metaspace', 'always')) return 'every'
  if (steps.some((step) => step.type === 'ByteLevel' && step.add_prefix_space === true)) return 'every'
  return has('Metaspace', 'first') ? 'once' : 'none'
}

/** Whether decoding drops the space with which a text begins. */
export const stripsFirstSpace = (json: TokenizerJson): boolean =>
  stepsOf(json.decoder).some(
    ({ type, content, start, prepend_scheme: scheme }) =>
      (type === 'Strip' && content === ' ' && Number(start) > 0) || (type === 'Metaspace' && scheme !== 'never'),
  )

/** A normalizer, pre-tokenizer or decoder; of a sequence its parts. */
function stepsOf(node: unknown): Json[] {
  if (!isObject(node)) return []
  const parts = node.type === 'Sequence' ? (node.normalizers ?? node.pretokenizers ?? node.decoders) : undefined
  return Array.isArray(parts) ? parts.flatMap(stepsOf) : [node]
}

function withoutPrefix(node: unknown): unknown {
  if (!isObject(node)) return node
  if (node.type === 'Prepend') return { type: 'Sequence', normalizers: [] }
  if (node.type === 'Metaspace') return { ...node, prepend_scheme: 'never' }
  if (node.type === 'ByteLevel') return { ...node, add_prefix_space: false }
  if (node.type === 'Strip') return { ...node, strip_left: false }
  const lists = ['normalizers', 'pretokenizers'].filter((name) => Array.isArray(node[name]))
  return { ...node, ...Object.fromEntries(lists.map((name) => [name, (node[name] as unknown[]).map(withoutPrefix)])) }
}

/**
 * Fills the ranks as the library would. On its own it makes a list of lists of them first, which with a vocabulary of 50,000
 * tokens are megabytes that the process never gives back.
 */
function rankMerges(merges: readonly unknown[], ranks: Map<string, number>): void {
  for (const [rank, merge] of merges.entries()) {
    const pair = typeof merge === 'string' ? merge.split(' ', 2) : merge
    ranks.set(JSON.stringify(pair), rank)
  }
}

const MAX_CACHED_WORDS = 1 << 16

function wordCache<T>() {
  let words = new Map<string, T>()
  return {
    get: (word: string) => words.get(word),
    put(word: string, value: T) {
      if (words.size >= MAX_CACHED_WORDS) words = new Map()
      words.set(word, value)
    },
    clear: () => words.clear(),
  }
}

/**
 * Decodes a run of `<0xXX>` tokens as Rust does: kept whole, U+FEFF included, or one replacement character per byte.
 */
class ByteRunDecoder extends TextDecoder {
  readonly #strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

  override decode(bytes: Uint8Array): string {
    try {
      return this.#strict.decode(bytes)
    } catch {
      return '\ufffd'.repeat(bytes.length)
    }
  }
}

/**
 * The same tokenizer in a form that @huggingface/tokenizers 0.2 reads as the Rust library does, and fast. Rewritten are
 *
 * - `Digits`: Rust takes every Unicode number (\p{N}) for a digit, JavaScript only 0-9 (`m²`, `٣`);
 * - `ByteLevel` with its own pattern and `Whitespace`: JavaScript's \s and \w are not Unicode's (U+FEFF, U+0085, `é`),
 *   those of a `Split` pattern are;
 * - `Metaspace`: JavaScript never splits at `▁`;
 * - BPE over a whole document as one word (Llama 2 style): where no token continues from another character into `▁`, no
 *   merge can cross that boundary, so splitting there gives the same ids and lets the library's word cache work.
 */
function forLibrary(json: TokenizerJson, independent: boolean): TokenizerJson {
  const preTokenizer = rewritePreTokenizer(json.pre_tokenizer)
  if (!independent) return { ...json, pre_tokenizer: preTokenizer }
  const steps = preTokenizer === null ? [] : [preTokenizer]
  return { ...json, pre_tokenizer: sequence(...steps, split('▁+[^▁]*|[^▁]+')) }
}

const split = (regex: string) => ({ type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false })

const sequence = (...pretokenizers: unknown[]) => ({ type: 'Sequence', pretokenizers })

// The pattern of GPT-2, which ByteLevel applies where use_regex is set.
const BYTE_LEVEL = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

function rewritePreTokenizer(node: unknown): unknown {
  if (!isObject(node)) return node
  if (node.type === 'Sequence' && Array.isArray(node.pretokenizers)) {
    return sequence(...node.pretokenizers.map(rewritePreTokenizer))
  }
  if (node.type === 'Digits') return split(node.individual_digits === true ? '\\p{N}' : '\\p{N}+')
  if (node.type === 'Whitespace') return { ...split('\\w+|[^\\w\\s]+'), behavior: 'Removed', invert: true }
  if (node.type === 'ByteLevel' && node.use_regex !== false && node.add_prefix_space === false) {
    return sequence(split(BYTE_LEVEL), { ...node, use_regex: false })
  }
  if (node.type === 'Metaspace' && node.split !== false) {
    const space = quote(String(node.replacement ?? '▁'))
    return sequence(node, split(`${space}[^${space}]*|[^${space}]+`))
  }
  return node
}

const quote = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

/** Whether text is written with `▁` for spaces and no merge joins one to what stands before it. */
function wordsAreIndependent(model: Json): boolean {
  if (model.type !== 'BPE' || !isObject(model.vocab) || model.ignore_merges === true) return false
  if (model.end_of_word_suffix || model.continuing_subword_prefix) return false
  const tokens = Object.keys(model.vocab)
  return tokens.some((token) => token.startsWith('▁')) && tokens.every((token) => !/[^▁]▁/u.test(token))
}
