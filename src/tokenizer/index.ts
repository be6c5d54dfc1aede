// A Hugging Face tokenizer from the texts of its files: encoding, decoding, chat template, bytes per token.
// Does not know where the files came from; uses no Node API.
import { UserError } from '../types.ts'
import { tokenBytes } from './bytes.ts'
import { readChatTemplate, renderChat } from './chat.ts'
import { parseObject, parseTokenizerJson } from './files.ts'
import { createLibraryTokenizer } from './library.ts'
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
  const library = createLibraryTokenizer(json, config)
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
  }
  const idOf = (token: string | undefined) => (token === undefined ? undefined : library.token_to_id(token))
  const chatTemplate = readChatTemplate(config.chat_template, files['chat_template.jinja'])
  const pieces = tokenBytes(json, idToToken, added)

  return {
    vocabSize: idToToken.length,
    bosTokenId: idOf(names.bos_token),
    eosTokenId: idOf(names.eos_token),
    padTokenId: idOf(names.pad_token),
    chatTemplate,
    specialTokenIds: [...specialIds].sort((a, b) => a - b),
    encode: (text, options) => library.encode(text, { add_special_tokens: options?.addSpecialTokens ?? false }).ids,
    decode(ids, options) {
      const known = Array.from(ids).filter(
        (id) => idToToken[id] !== undefined && !(options?.skipSpecialTokens && specialIds.has(id)),
      )
      if (known.length === 0) return ''
      return library.decode(known, { clean_up_tokenization_spaces: config.clean_up_tokenization_spaces === true })
    },
    tokenToId: (token) => library.token_to_id(token),
    idToToken: (id) => idToToken[id],
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
      if (chatTemplate === undefined) {
        throw new UserError(
          'the tokenizer has no chat template; add one as chat_template to tokenizer_config.json, or use plain prompts',
        )
      }
      return renderChat(chatTemplate, {
        ...names,
        messages,
        add_generation_prompt: options?.addGenerationPrompt ?? false,
        tools: options?.tools,
      })
    },
    files: () => ({ ...files }),
  }
}
