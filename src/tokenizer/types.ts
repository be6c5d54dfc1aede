// The tokenizer as the other layers see it.

export interface ChatMessage {
  role: string
  content: string
  /** Of an assistant that calls functions; templates that know tools render them. */
  tool_calls?: { id: string; type: 'function'; function: { name: string; arguments: unknown } }[]
  /** Of a tool's answer: the call that it answers. */
  tool_call_id?: string
  name?: string
}

/** A function that the model may call; `parameters` is a JSON Schema. */
export interface Tool {
  type: 'function'
  function: { name: string; description?: string; parameters?: Record<string, unknown> }
}

export interface Tokenizer {
  /** Number of ids the tokenizer knows, added tokens included (the model may have more rows). */
  readonly vocabSize: number
  readonly bosTokenId: number | undefined
  readonly eosTokenId: number | undefined
  readonly padTokenId: number | undefined
  readonly chatTemplate: string | undefined
  /** Special tokens are recognised in the text; none are added around it unless asked for. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[]
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): string
  tokenToId(token: string): number | undefined
  idToToken(id: number): string | undefined
  /** Ids of the special tokens, ascending. */
  readonly specialTokenIds: readonly number[]
  /** Bytes of UTF-8 text that `ids` stand for, special tokens counted as 0: the denominator of bits per byte. */
  byteLength(ids: ArrayLike<number>): number
  /**
   * The bytes of text by id; undefined for special ids. A text is its tokens' bytes in a row, but for a space at its start,
   * which SentencePiece drops. Throws UserError for tokenizers of another kind.
   */
  tokenBytes(): (Uint8Array | undefined)[]
  /** Renders the chat template. Throws UserError where the tokenizer has none. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: { addGenerationPrompt?: boolean; tools?: readonly Tool[] },
  ): string
  /** File name -> text (tokenizer.json, tokenizer_config.json, special_tokens_map.json), to be written beside a model. */
  files(): Record<string, string>
}
