// What a page asks the worker that holds a model, and gets. All of it is plain values: structured clones.
import type { Filled, FillSettings, Piece } from '../text/fill.ts'
import type { WriteSettings } from '../text/model.ts'
import type { PromptStyle } from '../text/prompt.ts'
import type { RewriteSettings, Rewritten } from '../text/rewrite.ts'
import type { ChatMessage, Tool } from '../tokenizer/types.ts'
import type { Backend, OpenOptions, Source } from './open.ts'

type Plain<T> = Omit<T, 'signal'>

export type ChatSettings = WriteSettings & { tools?: readonly Tool[] }

export type Question =
  | { kind: 'load'; source: Source; options: Omit<OpenOptions, 'signal' | 'onProgress'> }
  | { kind: 'generate'; prompt: string; settings: Plain<WriteSettings> }
  | { kind: 'chat'; messages: readonly ChatMessage[]; settings: Plain<ChatSettings> }
  | { kind: 'infill'; text: string | readonly Piece[]; settings: Plain<FillSettings> }
  | { kind: 'rewrite'; text: string; settings: Plain<RewriteSettings> }
  | { kind: 'score'; text: string }
  | { kind: 'memory' }

/** What a model is, once it is loaded. */
export interface Description {
  name: string
  promptStyle: PromptStyle
  backend: Backend
}

/** The end of an answer, by the kind of question; texts are TextEvents, then a TextResult. */
export interface Answers {
  load: Description
  infill: Filled
  rewrite: Rewritten
  score: { token: number; logprob: number | undefined }[]
  memory: number
}
