// A model as a library offers it: loaded once, then asked any number of times. Composes loading, prompts and the generator.

import { type InferenceModel, loadAdapterFor, loadForInference } from '../checkpoint/load.ts'
import type { Device } from '../core/types.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import type { ChatMessage, Tokenizer, Tool } from '../tokenizer/types.ts'
import type { Writing } from './assemble.ts'
import { type Filled, type FillSettings, fillGaps, type Piece, parseGaps } from './fill.ts'
import { createGenerator, type GenerateSettings, type Generator, type GeneratorOptions } from './generator.ts'
import { type PromptStyle, promptIds, promptStyle, textIds } from './prompt.ts'
import { type RewriteSettings, type Rewritten, rewriteByPrompt, rewritePrompt, rewriteText } from './rewrite.ts'

export interface OpenOptions extends Omit<GeneratorOptions, 'adapter'> {
  /** Folder of an adapter that drafts what the model writes. */
  adapter?: string
  /** Threads of the executor. Default: the cores of the machine. */
  threads?: number
  /** Default `cpu`. Throws UserError where the machine has no such device. */
  device?: Device
  /** Ends loading. */
  signal?: AbortSignal
}

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

/**
 * Loads a model to ask it: a folder, a .gguf or .safetensors file, the Hub or a Python package (see `pull`).
 *
 * @example
 * const model = await openModel('models/tiny')
 * for await (const { added } of model.generate('reverse(stone)=')) process.stdout.write(added)
 * await model.dispose()
 */
export async function openModel(source: string, options: OpenOptions = {}): Promise<OpenModel> {
  const { adapter, threads, device, signal, ...rest } = options
  const loaded = await loadForInference(source, { signal })
  const executor = createExecutor({ threads, device })
  try {
    const generator = await createGenerator(executor, loaded, {
      ...rest,
      adapter: adapter === undefined ? undefined : await loadAdapterFor(loaded.model, adapter),
    })
    return modelOf(loaded, generator, () => executor.dispose())
  } catch (error) {
    await executor.dispose()
    throw error
  }
}

function modelOf(loaded: InferenceModel, generator: Generator, dispose: () => Promise<void>): OpenModel {
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

export type GenerateOptions = WriteSettings & Pick<OpenOptions, 'mode' | 'blockSize' | 'threads' | 'device'>

/**
 * Answers one prompt with a model whose files have been read, for scripts that want one answer. Its session is of this call
 * alone; to ask again and again, keep an `openModel`.
 */
export async function* generate(
  loaded: InferenceModel,
  prompt: string | readonly ChatMessage[],
  { threads, device, mode, blockSize, ...settings }: GenerateOptions = {},
): Writing {
  const executor = createExecutor({ threads, device })
  try {
    const model = modelOf(loaded, await createGenerator(executor, loaded, { mode, blockSize }), () =>
      executor.dispose(),
    )
    return yield* typeof prompt === 'string' ? model.generate(prompt, settings) : model.chat(prompt, settings)
  } finally {
    await executor.dispose()
  }
}
