// A model as a library offers it: loaded once, then asked any number of times. Composes prompts and the generator; uses no Node
// API.

import type { InferenceModel } from '../checkpoint/load.ts'
import type { ChatMessage, Tokenizer, Tool } from '../tokenizer/types.ts'
import type { Writing } from './assemble.ts'
import { type Filled, type FillSettings, fillGaps, type Piece, parseGaps } from './fill.ts'
import type { GenerateSettings, Generator } from './generator.ts'
import { type PromptStyle, promptIds, promptStyle, textIds } from './prompt.ts'
import { type RewriteSettings, type Rewritten, rewriteByPrompt, rewritePrompt, rewriteText } from './rewrite.ts'

/** Settings of one text, and another style of prompts than the model's own. */
export type WriteSettings = GenerateSettings & Partial<PromptStyle>

/**
 * A model that is ready. Calls may run at the same time: they share forwards. What `generate` and `chat` return gives the text
 * as it becomes final (`for await`), and ends with all of it; leaving the loop ends the generation.
 */
export interface OpenModel {
  readonly name: string
  readonly tokenizer: Tokenizer
  /** How its prompts are written, unless a call says otherwise. */
  readonly promptStyle: PromptStyle
  /** What lies below: tokens, blocks, the end tokens. */
  readonly generator: Generator
  /** Answers a prompt, written as the model's training data were. Throws UserError for settings that make no sense. */
  generate(prompt: string, settings?: WriteSettings): Writing
  /** The next turn of a chat; see `promptIds` for models of plain prompts. */
  chat(messages: readonly ChatMessage[], settings?: WriteSettings & { tools?: readonly Tool[] }): Writing
  /** Fills the gaps of a text: `{{8}}` for 8 tokens, `{{2-8}}` for 2 to 8; or of its pieces. */
  infill(text: string | readonly Piece[], settings?: FillSettings): Promise<Filled>
  /** Corrects a text, for models trained to do so: token by token, or by writing it anew. */
  rewrite(text: string, settings?: RewriteSettings): Promise<Rewritten>
  /** ln p of each token of a text (its lower bound for diffusion models); undefined for one that nothing predicts. */
  score(text: string): Promise<{ token: number; logprob: number | undefined }[]>
  /** Frees the weights. */
  dispose(): Promise<void>
}

/** What can be asked of a loaded model whose generator is ready. */
export function modelOf(loaded: InferenceModel, generator: Generator, dispose: () => Promise<void>): OpenModel {
  const { tokenizer, name } = loaded
  return {
    ...{ name, tokenizer, generator, dispose, promptStyle: promptStyle(loaded) },
    generate(prompt, { template, separator, ...settings } = {}) {
      return generator.write(promptIds(prompt, loaded, { template, separator }), settings)
    },
    chat(messages, { template, separator, tools, ...settings } = {}) {
      return generator.write(promptIds(messages, loaded, { template, separator, tools }), settings)
    },
    infill(text, settings) {
      return fillGaps(generator, tokenizer, typeof text === 'string' ? parseGaps(text) : text, settings)
    },
    async rewrite(text, settings) {
      const prompt = rewritePrompt(loaded.model, text)
      return prompt === undefined
        ? rewriteText(generator, text, settings)
        : rewriteByPrompt(generator, text, promptIds(prompt, loaded), settings)
    },
    async score(text) {
      const ids = textIds(text, loaded)
      const scores = await generator.score(ids)
      return ids.map((token, i) => ({ token, logprob: scores[i]?.logprob }))
    },
  }
}
