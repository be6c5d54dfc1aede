// A Hugging Face tokenizer from the texts of its files: encoding, decoding, chat template, bytes per token.
// Does not know where the files came from; uses no Node API.
import { UserError } from '../core/types.ts'
import { tokenBytes } from './bytes.ts'
import { readChatTemplates, renderChat } from './chat.ts'
import { createEncoder } from './encode.ts'
import { isObject, type Json, parseObject, parseTokenizerJson } from './files.ts'
import { createLibraryTokenizers, type LibraryTokenizer, prefixOf, stripsFirstSpace } from './library.ts'
import type { Tokenizer } from './types.ts'

export type { ChatMessage, Tokenizer, Tool } from './types.ts'

/**
 * Builds a tokenizer from `tokenizer.json` and, where given, `tokenizer_config.json`, `special_tokens_map.json` and
 * `chat_template.jinja` (file name -> text). Throws UserError naming the file that is missing or wrong.
 * `vocabSize` is the largest id plus one, so that it is also a bound for arrays indexed by id. Not supported is
 * `single_word` of added tokens: they are found inside words, too.
 */
export function loadTokenizer(files: Readonly<Record<string, string>>): Tokenizer {
  const text = files['tokenizer.json']
  if (text === undefined) {
    throw new UserError(
      `no tokenizer.json among ${Object.keys(files).join(', ') || 'no files'}; a tokenizer needs this file`,
    )
  }
  const json = parseTokenizerJson(text)
  const config = {
    ...parseObject(files['special_tokens_map.json'] ?? '{}', 'special_tokens_map.json'),
    ...parseObject(files['tokenizer_config.json'] ?? '{}', 'tokenizer_config.json'),
  }
  const { whole: library, start, inside } = createLibraryTokenizers(json, config)
  const idToToken: (string | undefined)[] = []
  for (const [token, id] of library.get_vocab()) if (token !== undefined) idToToken[id] = token
  const added = library.get_added_tokens_decoder()
  const special = [...added.values()].filter((token) => token.special)
  const specialIds = new Set(special.map((token) => token.id))

  /** The id of a token that a config names, as a string or as a serialised added token. */
  function namedToken(key: string): string | undefined {
    const value = config[key]
    const content = typeof value === 'object' && value !== null && 'content' in value ? value.content : value
    return typeof content === 'string' && library.token_to_id(content) !== undefined ? content : undefined
  }
  const names = {
    bos_token: namedToken('bos_token'),
    eos_token: namedToken('eos_token'),
    pad_token: namedToken('pad_token'),
    unk_token: namedToken('unk_token'),
    sep_token: namedToken('sep_token'),
    cls_token: namedToken('cls_token'),
    mask_token: namedToken('mask_token'),
  }
  const idOf = (token: string | undefined) => (token === undefined ? undefined : library.token_to_id(token))
  const templates = readChatTemplates(config.chat_template, files['chat_template.jinja'])
  const pieces = tokenBytes(json, idToToken, added)
  const strips = stripsFirstSpace(json)
  const encoder = createEncoder({
    ...{ start, inside, prefix: prefixOf(json), found: [...added.values()].filter((t) => t.special || !t.normalized) },
    special,
    unknownId: library.model.unk_token_id,
    around: asConfigured(tokensAround(library), config, idOf(names.bos_token), idOf(names.eos_token)),
  })
  /** Messages and tools with all of their texts guarded; roles are names that templates compare. */
  function guarded<T>(value: T): T
  function guarded(value: unknown): unknown {
    if (typeof value === 'string') return encoder.guard(value)
    if (Array.isArray(value)) return value.map((item) => guarded(item))
    if (!isObject(value)) return value
    const entries = Object.entries(value)
    return Object.fromEntries(entries.map(([key, item]) => [encoder.guard(key), key === 'role' ? item : guarded(item)]))
  }

  return {
    vocabSize: idToToken.length,
    bosTokenId: idOf(names.bos_token),
    eosTokenId: idOf(names.eos_token),
    padTokenId: idOf(names.pad_token),
    chatTemplate: templates.standard,
    specialTokenIds: [...specialIds].sort((a, b) => a - b),
    encode: (text, options) => encoder.encodeParts([text], options)[0],
    encodeParts: encoder.encodeParts,
    guard: encoder.guard,
    decode(ids, options) {
      const known = Array.from(ids).filter(
        (id) => idToToken[id] !== undefined && !(options?.skipSpecialTokens && specialIds.has(id)),
      )
      if (known.length === 0) return ''
      return library.decode(known, { clean_up_tokenization_spaces: false })
    },
    tokenToId: (token) => library.token_to_id(token),
    idToToken: (id) => idToToken[id],
    textIsBytes: pieces.inARow,
    bytesOf: pieces.bytes,
    dropsSpace: (ids) => strips && encoder.prefixes(ids),
    byteLength(ids) {
      let bytes = 0
      for (let i = 0; i < ids.length; i++) bytes += pieces.length(ids[i]!)
      return bytes
    },
    tokenBytes() {
      pieces.checkConcatenation()
      return idToToken.map((_, id) => pieces.bytes(id))
    },
    applyChatTemplate(messages, options) {
      const template = (options?.tools?.length ? templates.withTools : undefined) ?? templates.standard
      if (template === undefined) {
        throw new UserError(
          'the tokenizer has no chat template; add one as chat_template to tokenizer_config.json, or use plain prompts',
        )
      }
      const given = { messages, tools: options?.tools }
      return renderChat(template, {
        ...names,
        ...(options?.guard ? guarded(given) : given),
        add_generation_prompt: options?.addGenerationPrompt ?? false,
      })
    },
    files: () => ({ ...files }),
  }
}

/** Tokenizers whose class in transformers, up to version 4, replaces what tokenizer.json says of BOS and EOS. */
const OBEYS_CONFIG = /^(?:Code)?Llama|^Gemma|^Cohere/

/**
 * What stands around a text, as add_bos_token and add_eos_token of tokenizer_config.json have it. True adds the token where
 * tokenizer.json does not; many files of Llama's kind say it only there. False takes it away from files whose class does.
 */
function asConfigured(
  { before, behind }: Around,
  config: Json,
  bos: number | undefined,
  eos: number | undefined,
): Around {
  const obeys = OBEYS_CONFIG.test(String(config.tokenizer_class))
  const configured = (ids: number[], id: number | undefined, setting: unknown): number[] => {
    if (id !== undefined && setting === true && !ids.includes(id)) return [id, ...ids]
    return setting === false && obeys ? ids.filter((one) => one !== id) : ids
  }
  return {
    before: configured(before, bos, config.add_bos_token),
    behind: configured(behind, eos, config.add_eos_token),
  }
}

interface Around {
  before: number[]
  behind: number[]
}

/** The ids that tokenizer.json puts before and behind a text when special tokens are asked for. */
function tokensAround(library: LibraryTokenizer): Around {
  const text = '\ufdd0'
  const { tokens } = library.post_processor?.([text], null, true) ?? { tokens: [text] }
  const ids = tokens.map((token) => library.token_to_id(token))
  const at = tokens.indexOf(text)
  const known = (some: (number | undefined)[]) => some.filter((id) => id !== undefined)
  return { before: known(ids.slice(0, at)), behind: known(ids.slice(at + 1)) }
}
