// Messages between the server and the process that holds a model. They are structured clones: plain values only.

import type { Device } from '../../core/types.ts'
import type { ConstraintSource, DecodingMode, DecodingSettings, Sharing } from '../../decode/index.ts'
import type { ChatMessage, Tool } from '../../tokenizer/types.ts'

/** What is asked of a model process when it starts. */
export interface WorkerSettings {
  /** Model source as `unmask generate` takes it; from the server's configuration only. */
  path: string
  mode?: DecodingMode
  blockSize?: number
  /** Folder of an adapter that drafts. */
  adapter?: string
  /** Finished texts whose keys and values are kept. */
  keepPrefixes?: number
  threads?: number
  device?: Device
}

/** What a model is, reported once it is loaded. */
export interface ModelInfo {
  mode: DecodingMode
  blockSize: number
  maxPositions: number
  vocabSize: number
  /** Whether chats are rendered by the chat template. */
  chat: boolean
  /** Whether it was trained with plain prompts: a chat is then the last message of a user, as it is. */
  plainPrompts: boolean
  /** Whether the chat template renders tools. */
  tools: boolean
  /** Whether tokens between a prompt and a suffix can be filled in. */
  infill: boolean
  chatTemplate: string | undefined
  bosToken: string | undefined
  eosToken: string | undefined
  padToken: string | undefined
}

export type Prompt =
  | { kind: 'ids'; ids: number[] }
  /** `special`: names of special tokens in it are tokens, or (default) text. */
  | { kind: 'text'; text: string; special?: 'tokens' | 'text' }
  /** `forced`: the answer begins as a call of one of the tools. */
  | { kind: 'chat'; messages: ChatMessage[]; tools?: Tool[]; forced?: boolean }

/** A text that is not continued but gets its holes filled, `mask` tokens each, or its tokens corrected. */
export interface Revision {
  kind: 'revise'
  task: 'fill' | 'rewrite'
  parts: (string | { mask: number })[]
}

/** How tokens are chosen. What is left out is the model's own setting, or the default. */
export interface Sampling extends DecodingSettings {
  logitBias?: [token: number, bias: number][] | undefined
}

/** One sequence to generate. */
export interface GenerateJob {
  /** Whose keys and values the prompt may share. */
  sharing?: Sharing
  prompt: Prompt | Revision
  /** Field of the request that a prompt too long is blamed on. */
  promptParam: string
  /** Most tokens that the prompt may have. */
  maxPromptTokens: number
  /** Text after the gap, for infilling. */
  suffix?: string
  maxNewTokens: number
  sampling: Sampling
  /** What the text must match, and the field that asked for it. */
  constraint?: { source: ConstraintSource; param: string }
  /** The text ends before the first of these. */
  stop: string[]
  /** Reports every committed token with its step and confidence. */
  unmasking: boolean
  /** Log-probabilities of the tokens, with this many alternatives. */
  logprobs?: number
}

/** A prompt to echo, and to score: the log-probability of each of its tokens. */
export interface ScoreJob {
  prompt: Prompt
  promptParam: string
  maxPromptTokens: number
  /** Alternatives per token; without it nothing is scored. */
  top?: number
}

/** A token and its log-probability. */
export interface Alternative {
  /** Text of the token, `bytes:\x..` where it is no whole character, or the name of a special token. */
  token: string
  /** Bytes of text that it stands for; undefined for special tokens. */
  bytes?: Uint8Array
  logprob: number
}

export interface TokenLogprob extends Alternative {
  /** Characters (code points) of the answer before it. */
  offset: number
  top: Alternative[]
}

/** A token that a step decided, in any order; `edited` where it replaces an earlier one. */
export interface UnmaskedToken {
  /** Index in the answer, from 0. */
  position: number
  token: number
  text: string
  step: number
  confidence: number
  edited?: true
}

/** A token of a text that is revised. */
export interface LayoutToken {
  text: string
  /** Number of the hole that it belongs to, from 0; its text is empty. */
  hole?: number
}

/** The first has nothing: a sign of life. The next has no text and reports that generation has begun. */
export interface GenerateEvent {
  promptTokens?: number
  /** Of a text that is revised: its tokens as they are given. */
  layout?: LayoutToken[]
  /** Tokens that are final so far, and forwards that took. */
  tokens?: number
  forwards?: number
  /** Text that is final, in order. */
  text: string
  logprobs?: TokenLogprob[]
  unmasked?: UnmaskedToken[]
}

export interface GenerateResult {
  /** `content_filter` is the server's word, never a model's. */
  finish: 'stop' | 'length' | 'content_filter'
  promptTokens: number
  cachedTokens: number
  completionTokens: number
  forwards: number
  /** Texts of the holes that were filled. */
  holes?: string[]
}

export interface ScoreResult {
  ids: number[]
  text: string
  /** Text of each token, as in `TokenLogprob`. */
  tokens: string[]
  /** Characters (code points) of the text before each token. */
  offsets: number[]
  /** Undefined for a first token that nothing predicts. */
  logprobs: (number | undefined)[]
  top: { token: string; logprob: number }[][]
}

export type WorkerRequest =
  | { kind: 'load'; settings: WorkerSettings }
  | { kind: 'generate'; id: number; job: GenerateJob }
  | { kind: 'score'; id: number; job: ScoreJob }
  | { kind: 'tokenize'; id: number; prompt: Prompt; addSpecialTokens: boolean; maxPromptTokens: number }
  | { kind: 'detokenize'; id: number; ids: number[] }
  | { kind: 'cancel'; id: number }
  /** Asks for a `pong`, to know that the process still answers. */
  | { kind: 'ping' }
  /** Ends the process once nothing runs. */
  | { kind: 'close' }

export type WorkerReply =
  | { kind: 'loaded'; info: ModelInfo }
  | { kind: 'unloadable'; message: string }
  | { kind: 'pong' }
  | { kind: 'event'; id: number; event: GenerateEvent }
  | { kind: 'done'; id: number; value: GenerateResult | ScoreResult | number[] | string }
  | { kind: 'error'; id: number; error: WorkerError }

/** `request`: the client's doing; `internal`: the text is for the log alone. */
export interface WorkerError {
  kind: 'request' | 'internal'
  message: string
  param?: string
  code?: string
}
