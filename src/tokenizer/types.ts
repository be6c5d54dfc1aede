// The tokenizer as the other layers see it.

export interface ChatMessage {
  role: string
  content: string
  /** Of an assistant: what it thought before it answered. */
  reasoning_content?: string
  /** Of an assistant that calls functions; templates that know tools render them. */
  tool_calls?: { id?: string; type: 'function'; function: { name: string; arguments: unknown } }[]
  /** Of a tool's answer: the call that it answers. */
  tool_call_id?: string
  name?: string
}

/** A function that the model may call; `parameters` is a JSON Schema. */
export interface Tool {
  type: 'function'
  function: { name: string; description?: string; parameters?: Record<string, unknown> }
}

export interface EncodeOptions {
  /** Puts the tokens around the text that the tokenizer has for that (BOS, EOS). Default false. */
  addSpecialTokens?: boolean
  /**
   * What the names of special tokens in the text are: the `tokens`; `text` like any other, for what users write; or, where
   * it is `guarded` (see `guard`), both. Default `tokens`.
   */
  special?: 'tokens' | 'text' | 'guarded'
  /** The text continues another: no space is put before it. Default false. */
  continues?: boolean
}

export interface Tokenizer {
  /** Number of ids the tokenizer knows, added tokens included (the model may have more rows). */
  readonly vocabSize: number
  readonly bosTokenId: number | undefined
  readonly eosTokenId: number | undefined
  readonly padTokenId: number | undefined
  readonly chatTemplate: string | undefined
  encode(text: string, options?: EncodeOptions): number[]
  /**
   * Encodes one text that comes in parts: ids by part, none over a boundary. Only the first part begins a text: no space is
   * put before the others, so the ids of all parts in a row stand for the parts in a row.
   */
  encodeParts(parts: readonly string[], options?: EncodeOptions): number[][]
  /**
   * Marks the names of special tokens in a text as text, so that it can be put among text whose special tokens count, such as
   * a chat template's. To be encoded as `guarded`. Marks are noncharacters (U+FDD0); cutting and trimming keeps them right.
   */
  guard(text: string): string
  /**
   * As the Rust library does. For text that continues another, or grows, or must be that of `encodeParts` again, see stream.ts.
   * Spaces before punctuation stay, whatever `clean_up_tokenization_spaces` says: without them code is not what was written.
   */
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): string
  tokenToId(token: string): number | undefined
  idToToken(id: number): string | undefined
  /** A text is its tokens' bytes in a row; else a decoder joins words, and only `decode` knows how. */
  readonly textIsBytes: boolean
  /** The bytes of text that a token stands for, a first space included; undefined for special and unknown ids. */
  bytesOf(id: number): Uint8Array | undefined
  /** Whether a space that begins the text behind `ids` is the tokenizer's own and no part of the text. */
  dropsSpace(ids: ArrayLike<number>): boolean
  /** Ids of the special tokens, ascending. */
  readonly specialTokenIds: readonly number[]
  /** Bytes of UTF-8 text that `ids` stand for, special tokens counted as 0: the denominator of bits per byte. */
  byteLength(ids: ArrayLike<number>): number
  /**
   * The bytes of text by id; undefined for special ids. A text is its tokens' bytes in a row, but for a space at its start,
   * which SentencePiece drops. Throws UserError for tokenizers of another kind.
   */
  tokenBytes(): (Uint8Array | undefined)[]
  /**
   * Renders the chat template. `guard`: what messages and tools hold is guarded, for encoding as `guarded`; without it the
   * text is for people. Throws UserError where the tokenizer has none.
   */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: { addGenerationPrompt?: boolean; tools?: readonly Tool[] | undefined; guard?: boolean },
  ): string
  /** File name -> text (tokenizer.json, tokenizer_config.json, special_tokens_map.json), to be written beside a model. */
  files(): Record<string, string>
}
