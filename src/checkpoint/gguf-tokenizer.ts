// Builds Hugging Face tokenizer files from the vocabulary in a GGUF file's metadata. Knows nothing about tensors.
import { UserError } from '../core/types.ts'
import type { GgufMetadata } from './gguf.ts'
import { ggufSettings } from './gguf-settings.ts'

type Json = Record<string, unknown>

/** llama.cpp's token types. */
const TokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

interface Vocabulary {
  path: string
  tokens: readonly string[]
  types: readonly number[]
  scores: readonly number[]
  merges: readonly string[]
  bos: string | undefined
  eos: string | undefined
  pad: string | undefined
  unknown: string | undefined
  addBos: boolean | undefined
  addEos: boolean | undefined
  addSpacePrefix: boolean | undefined
  chatTemplate: string | { name: string; template: string }[] | undefined
}

/** Ids that vocabularies of a kind have where the file does not say (llama.cpp's defaults). */
const usualIds: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  llama: { bos: 1, eos: 2, unknown: 0 },
}

/**
 * The id of a token with a role: bos, eos, padding, unknown, mask. One that is not in the vocabulary counts as not said, as
 * in llama.cpp; writers put -1 or the largest number where there is none.
 */
export const tokenId = (metadata: GgufMetadata, role: string): number | undefined => {
  const size =
    (metadata.get('tokenizer.ggml.tokens') as { length?: number } | undefined)?.length ?? Number.POSITIVE_INFINITY
  const id = metadata.get(`tokenizer.ggml.${role}_token_id`)
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < size) return id
  const usual = usualIds[String(metadata.get('tokenizer.ggml.model'))]?.[role]
  return usual !== undefined && usual < size ? usual : undefined
}

const readVocabulary = (path: string, metadata: GgufMetadata): Vocabulary => {
  const { fail, texts, numbers, flag, text } = ggufSettings(path, metadata)
  const tokens = texts('tokenizer.ggml.tokens')
  if (tokens.length === 0) fail('tokenizer.ggml.tokens', 'there is no vocabulary')
  const perToken = (key: string): readonly number[] => {
    const values = numbers(key)
    if (values.length !== 0 && values.length !== tokens.length)
      fail(key, `${values.length} entries for ${tokens.length} tokens`)
    return values
  }
  const roles = ['bos', 'eos', 'padding', 'unknown', 'mask', 'sep', 'eot', 'eom']
  const [bos, eos, pad, unknown, ...others] = roles.map((role) => tokenId(metadata, role))
  const named = [bos, eos, pad, unknown, ...others].filter((id) => id !== undefined)
  const types = perToken('tokenizer.ggml.token_type')
  const nameOf = (id: number | undefined) => (id === undefined ? undefined : tokens[id])
  return {
    path,
    tokens,
    types: types.length > 0 ? types : typesFromNames(tokens, new Set(named)),
    scores: perToken('tokenizer.ggml.scores'),
    merges: texts('tokenizer.ggml.merges'),
    bos: nameOf(bos),
    eos: nameOf(eos),
    pad: nameOf(pad),
    unknown: nameOf(unknown),
    addBos: flag('tokenizer.ggml.add_bos_token'),
    addEos: flag('tokenizer.ggml.add_eos_token'),
    addSpacePrefix: flag('tokenizer.ggml.add_space_prefix'),
    chatTemplate: readTemplates(text('tokenizer.chat_template'), texts('tokenizer.chat_templates'), (name) =>
      text(`tokenizer.chat_template.${name}`),
    ),
  }
}

/**
 * Types for a file without them. Those that have a role are control tokens, and so are names that look like marks, as
 * llama.cpp takes them for; single bytes are known by their form.
 */
const typesFromNames = (tokens: readonly string[], named: ReadonlySet<number>): number[] =>
  tokens.map((token, id) => {
    if (named.has(id) || /^<[|｜].+[|｜]>$/.test(token)) return TokenType.control
    return BYTE.test(token) ? TokenType.byte : TokenType.normal
  })

const BYTE = /^<0x[0-9A-F]{2}>$/

/** The template, or, where there are others for some uses, all by name, as tokenizer_config.json lists them. */
const readTemplates = (
  standard: string | undefined,
  names: readonly string[],
  read: (name: string) => string | undefined,
): Vocabulary['chatTemplate'] => {
  const others = names.flatMap((name) => {
    const template = read(name)
    return template === undefined || name === 'default' ? [] : [{ name, template }]
  })
  if (others.length === 0 || standard === undefined) return standard
  return [{ name: 'default', template: standard }, ...others]
}

const splitBy = (pattern: string): Json => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
})

const byteLevel = (useRegex: boolean): Json => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
})

const sequence = (...pretokenizers: Json[]): Json => ({ type: 'Sequence', pretokenizers })

interface PreTokenizer {
  preTokenizer: Json
  normalizer?: Json
  /** A piece that is a whole token stays one, whatever the merges would make of it. */
  ignoreMerges?: boolean
  /** Whether llama.cpp begins a text with BOS when the file does not say. */
  addBos?: boolean
}

/** How GPT-4 style vocabularies cut a text; they differ in how many digits stay together. */
const contractionsWordsDigits = (digits: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|` +
  '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'

/** GPT-4o's way: a word is capitals, then small letters, each with marks; `after` may follow it. */
const capitalisedWords = (after: string, digits: string): string => {
  const [start, upper, lower] = [
    '[^\\r\\n\\p{L}\\p{N}]?',
    '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]',
    '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]',
  ]
  return (
    `${start}${upper}*${lower}+${after}|${start}${upper}+${lower}*${after}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|` +
    '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
  )
}

const CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"

const gpt2: PreTokenizer = { preTokenizer: byteLevel(true) }
// SmolLM's own file says Digits(individual), which is this pattern; as a pattern, @huggingface/tokenizers does not leave out
// the digits beyond ASCII.
const digitsAlone: PreTokenizer = { preTokenizer: sequence(splitBy('\\p{N}'), byteLevel(true)) }
const threeDigits = sequence(splitBy(contractionsWordsDigits('\\p{N}{1,3}')), byteLevel(false))
const oneDigit = sequence(splitBy(contractionsWordsDigits('\\p{N}')), byteLevel(false))
const llama3: PreTokenizer = { preTokenizer: threeDigits, ignoreMerges: true, addBos: true }
const qwen2: PreTokenizer = { normalizer: { type: 'NFC' }, preTokenizer: oneDigit }
const gpt4o: PreTokenizer = {
  preTokenizer: sequence(splitBy(capitalisedWords(`${CONTRACTIONS}?`, '\\p{N}{1,3}')), byteLevel(false)),
}
const bailing: PreTokenizer = {
  preTokenizer: sequence(
    splitBy(
      "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" +
        '\\s*[\\r\\n]|\\s+(?!\\S)|\\s+',
    ),
    byteLevel(false),
  ),
}

const each = (names: string, pre: PreTokenizer): Record<string, PreTokenizer> =>
  Object.fromEntries(names.split(' ').map((name) => [name, pre]))

/** Values of tokenizer.ggml.pre, as llama.cpp groups them (`llama_vocab::impl::load`); those of other families are missing. */
const preTokenizers: Readonly<Record<string, PreTokenizer>> = {
  ...each('gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling', gpt2),
  ...each('smollm starcoder refact command-r codeshell exaone minerva-7b mellum2', digitsAlone),
  ...each('llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2', llama3),
  ...each('dbrx smaug-bpe', { preTokenizer: threeDigits }),
  ...each('qwen2 deepseek-r1-qwen kormo megrez', qwen2),
  ...each('stablelm2 hunyuan solar-open grok-2', { preTokenizer: oneDigit }),
  ...each('gpt-4o llama4 kanana2', gpt4o),
  ...each('bailingmoe bailingmoe2 llada-moe', bailing),
  tekken: {
    preTokenizer: sequence(splitBy(capitalisedWords('', '\\p{N}')), byteLevel(false)),
    ignoreMerges: true,
    addBos: true,
  },
  'deepseek-coder': {
    preTokenizer: sequence(
      ...['[\r\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '[一-龥ࠀ-一가-퟿]+', '\\p{N}'].map(splitBy),
      byteLevel(false),
    ),
  },
  // llama.cpp's fallback for vocabularies that it does not know: four patterns, each applied to what the one before left.
  default: {
    preTokenizer: sequence(
      splitBy('[\\p{P}\\$\\+<=>\\^~\\|]+'),
      splitBy("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"),
      splitBy('\\p{N}+'),
      splitBy('[0-9][0-9][0-9]'),
      byteLevel(false),
    ),
  },
}

const addedTokens = ({ tokens, types }: Vocabulary): Json[] =>
  types.flatMap((type, id) =>
    type === TokenType.control || type === TokenType.userDefined || type === TokenType.unknown
      ? [
          {
            id,
            content: tokens[id]!,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: type !== TokenType.userDefined,
          },
        ]
      : [],
  )

/** Token -> id, without the entries that only fill up the ids of a checkpoint. */
const vocabularyIds = ({ path, tokens, types }: Vocabulary): Map<string, number> => {
  const ids = new Map<string, number>()
  for (const [id, token] of tokens.entries()) {
    if (types[id] === TokenType.unused) continue
    if (ids.has(token))
      throw new UserError(`${path}: metadata "tokenizer.ggml.tokens": ${JSON.stringify(token)} occurs twice`)
    ids.set(token, id)
  }
  return ids
}

/** Adds BOS before and EOS after a text when special tokens are asked for. */
const templateProcessor = (vocabulary: Vocabulary, addBos: boolean, addEos: boolean): Json | null => {
  const special = (token: string): Json => ({ SpecialToken: { id: token, type_id: 0 } })
  const bos = addBos ? vocabulary.bos : undefined
  const eos = addEos ? vocabulary.eos : undefined
  if (bos === undefined && eos === undefined) return null
  const around = (id: 'A' | 'B'): Json[] => [
    ...(bos === undefined ? [] : [special(bos)]),
    { Sequence: { id, type_id: 0 } },
    ...(eos === undefined ? [] : [special(eos)]),
  ]
  const entries = [bos, eos].flatMap((token) =>
    token === undefined ? [] : [[token, { id: token, ids: [vocabulary.tokens.indexOf(token)], tokens: [token] }]],
  )
  return {
    type: 'TemplateProcessing',
    single: around('A'),
    pair: [...around('A'), ...around('B')],
    special_tokens: Object.fromEntries(entries),
  }
}

const checkMerges = ({ path, merges }: Vocabulary, ids: ReadonlyMap<string, number>): void => {
  for (const [i, merge] of merges.entries()) {
    const [left, right, rest] = merge.split(' ')
    if (!left || !right || rest !== undefined || !ids.has(left) || !ids.has(right) || !ids.has(left + right))
      throw new UserError(
        `${path}: metadata "tokenizer.ggml.merges": entry ${i}, ${JSON.stringify(merge)}, does not join two tokens to a third`,
      )
  }
}

/** A byte-level BPE tokenizer (tokenizer.ggml.model "gpt2"). */
const byteLevelTokenizer = (vocabulary: Vocabulary, pre: PreTokenizer): { json: Json; addBos: boolean } => {
  const ids = vocabularyIds(vocabulary)
  checkMerges(vocabulary, ids)
  const addBos = vocabulary.addBos ?? pre.addBos ?? false
  return {
    addBos,
    json: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary),
      normalizer: pre.normalizer ?? null,
      pre_tokenizer: pre.preTokenizer,
      post_processor: templateProcessor(vocabulary, addBos, vocabulary.addEos ?? false),
      decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: pre.ignoreMerges ?? false,
        vocab: Object.fromEntries(ids),
        merges: vocabulary.merges,
      },
    },
  }
}

/**
 * The merges that make BPE choose as SentencePiece does: every way to put a piece together from two others, pieces of
 * higher score first. The order among ways of one score is that of Hugging Face's own conversion.
 */
const mergesFromScores = ({ tokens, types, scores }: Vocabulary): string[] => {
  const pieces = new Map<string, number>()
  for (const [id, token] of tokens.entries())
    if ((types[id] ?? TokenType.normal) === TokenType.normal) pieces.set(token, id)
  const merges: { left: string; right: string; score: number; leftId: number; rightId: number }[] = []
  for (const [token, id] of pieces) {
    for (let at = 1; at < token.length; at++) {
      const left = token.slice(0, at)
      const right = token.slice(at)
      const leftId = pieces.get(left)
      const rightId = pieces.get(right)
      if (leftId !== undefined && rightId !== undefined)
        merges.push({ left, right, score: scores[id]!, leftId, rightId })
    }
  }
  // Lengths count characters, as in Python; only their order among splits of one piece matters.
  merges.sort(
    (a, b) =>
      b.score - a.score ||
      [...b.left].length - [...a.left].length ||
      [...b.right].length - [...a.right].length ||
      a.leftId - b.leftId ||
      a.rightId - b.rightId,
  )
  return merges.map(({ left, right }) => `${left} ${right}`)
}

/** A SentencePiece BPE tokenizer with byte fallback (tokenizer.ggml.model "llama"), as Llama 2 has it. */
const sentencePieceTokenizer = (vocabulary: Vocabulary): { json: Json; addBos: boolean } => {
  const { path, tokens, types, scores, unknown } = vocabulary
  if (scores.length === 0) throw new UserError(`${path}: metadata "tokenizer.ggml.scores" is missing`)
  const bytes = new Set(tokens.filter((token, id) => types[id] === TokenType.byte && BYTE.test(token)))
  if (bytes.size !== 256)
    throw new UserError(
      `${path}: metadata "tokenizer.ggml.tokens": ${bytes.size} of 256 byte tokens; SentencePiece without byte fallback is not supported`,
    )
  const ids = vocabularyIds(vocabulary)
  const addBos = vocabulary.addBos ?? true
  const prefix = vocabulary.addSpacePrefix ?? true
  const space = { String: ' ' }
  const mark = '\u2581'
  return {
    addBos,
    json: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary),
      normalizer: {
        type: 'Sequence',
        normalizers: [
          ...(prefix ? [{ type: 'Prepend', prepend: mark }] : []),
          { type: 'Replace', pattern: space, content: mark },
        ],
      },
      pre_tokenizer: null,
      post_processor: templateProcessor(vocabulary, addBos, vocabulary.addEos ?? false),
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: mark }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
          ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
        ],
      },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: unknown ?? null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: true,
        byte_fallback: true,
        ignore_merges: false,
        vocab: Object.fromEntries(ids),
        merges: mergesFromScores(vocabulary),
      },
    },
  }
}

const tokenizerConfig = (vocabulary: Vocabulary, addBos: boolean, contextLength: number | undefined): Json => ({
  tokenizer_class: 'PreTrainedTokenizerFast',
  add_bos_token: addBos,
  add_eos_token: vocabulary.addEos ?? false,
  clean_up_tokenization_spaces: false,
  bos_token: vocabulary.bos,
  eos_token: vocabulary.eos,
  pad_token: vocabulary.pad,
  unk_token: vocabulary.unknown,
  model_max_length: contextLength,
  chat_template: vocabulary.chatTemplate,
})

const buildTokenizer = (
  path: string,
  metadata: GgufMetadata,
): { json: Json; addBos: boolean; vocabulary: Vocabulary } => {
  const { text } = ggufSettings(path, metadata)
  const model = text('tokenizer.ggml.model')
  if (model !== 'gpt2' && model !== 'llama')
    throw new UserError(
      `${path}: metadata "tokenizer.ggml.model": vocabularies of kind ${JSON.stringify(model ?? null)} are not supported; ` +
        '"gpt2" (byte-level BPE) and "llama" (SentencePiece BPE) are',
    )
  const vocabulary = readVocabulary(path, metadata)
  // Lists without entries cannot be stored: a vocabulary of single characters has no merges.
  const { tokens, types } = vocabulary
  const joined = tokens.some(
    (token, id) => [...token].length > 1 && (types[id] ?? TokenType.normal) === TokenType.normal,
  )
  if (model === 'gpt2' && !metadata.has('tokenizer.ggml.merges') && joined)
    throw new UserError(`${path}: metadata "tokenizer.ggml.merges" is missing`)
  if (model === 'llama') return { ...sentencePieceTokenizer(vocabulary), vocabulary }
  const name = text('tokenizer.ggml.pre') ?? 'default'
  if (!Object.hasOwn(preTokenizers, name))
    throw new UserError(
      `${path}: metadata "tokenizer.ggml.pre": ${JSON.stringify(name)} is not supported; ` +
        `supported are ${Object.keys(preTokenizers).join(', ')}`,
    )
  return { ...byteLevelTokenizer(vocabulary, preTokenizers[name]!), vocabulary }
}

/**
 * tokenizer.json and tokenizer_config.json for the vocabulary of a GGUF file, as text by file name.
 * Throws UserError for a kind of vocabulary or a pre-tokenizer that is not supported, and for inconsistent lists.
 */
export const ggufTokenizerFiles = (path: string, metadata: GgufMetadata): Record<string, string> => {
  const { json, addBos, vocabulary } = buildTokenizer(path, metadata)
  const architecture = metadata.get('general.architecture')
  const contextLength = metadata.get(`${architecture}.context_length`)
  return {
    'tokenizer.json': JSON.stringify(json),
    'tokenizer_config.json': `${JSON.stringify(
      tokenizerConfig(vocabulary, addBos, typeof contextLength === 'number' ? contextLength : undefined),
      null,
      2,
    )}\n`,
  }
}
