// Text generation with a loaded model: it decides between block decoding and next-token decoding, and turns prompts into
// tokens. How tokens are committed is the decoding layer's.
import { encodePrompt } from './data/index.ts'
import { createEngine, type Generation, type GenerationResult } from './decode/index.ts'
import type { InferenceModel, LoadedModel } from './load.ts'
import { createExecutor, type Executor } from './runtime/executor.ts'
import type { ChatMessage } from './tokenizer/types.ts'
import { UserError } from './types.ts'

export interface GeneratorOptions {
  /** Default: `diffusion` where config.json has a mask token, else `ar`. */
  mode?: 'diffusion' | 'ar'
  /** Default: `block_size` of config.json, else 32. */
  blockSize?: number
}

export interface GenerateSettings {
  maxNewTokens: number
  /** Commit tokens whose probability is above this (diffusion). Default 0.9. */
  threshold?: number
  /** Most denoising steps per block (diffusion). Default: as many as the block has tokens. */
  stepsPerBlock?: number
  signal?: AbortSignal
}

/** A model that is ready to generate. */
export interface Generator {
  mode: 'diffusion' | 'ar'
  /** Tokens that are decoded together; 1 for next-token decoding. */
  blockSize: number
  /** Committed tokens as they come, then the result. */
  generate(prompt: readonly number[], settings: GenerateSettings): Generation
  dispose(): Promise<void>
}

/** Puts a model on the executor for decoding; the weights are copied. Throws UserError for a mode the model cannot do. */
export async function createGenerator(
  executor: Executor,
  { model, parameters, tokenizer, generationConfig }: InferenceModel,
  options: GeneratorOptions = {},
): Promise<Generator> {
  const { mask_token_id: mask, block_size: configured } = model.config
  const maskTokenId = typeof mask === 'number' ? mask : undefined
  const mode = options.mode ?? (maskTokenId === undefined ? 'ar' : 'diffusion')
  if (mode === 'diffusion' && maskTokenId === undefined) {
    throw new UserError('this model is autoregressive (no mask_token_id in config.json): convert it, or use mode ar')
  }
  const eosTokenIds = new Set(
    [tokenizer.eosTokenId, model.config.eos_token_id, generationConfig?.eos_token_id]
      .flat()
      .filter((id): id is number => typeof id === 'number'),
  )
  const engine = await createEngine(executor, model, parameters, {
    ...(maskTokenId === undefined ? {} : { maskTokenId }),
    eosTokenIds: [...eosTokenIds],
    shift: model.config.same_token_labels === false,
  })
  const blockSize = mode === 'ar' ? 1 : (options.blockSize ?? (typeof configured === 'number' ? configured : 32))
  return {
    mode,
    blockSize,
    generate: (prompt, settings) =>
      mode === 'ar'
        ? engine.generateAutoregressive(prompt, settings)
        : engine.generate(prompt, { ...settings, blockSize }),
    dispose: engine.dispose,
  }
}

/**
 * The ids of a prompt as training saw it. `template` defaults to the chat template where the tokenizer has one, as
 * training does; `none` takes the text as it is.
 */
export function promptIds(
  prompt: string | readonly ChatMessage[],
  { tokenizer }: Pick<LoadedModel, 'tokenizer'>,
  { template, separator = '' }: { template?: 'none' | 'chat'; separator?: string } = {},
): number[] {
  const chat = template === undefined ? tokenizer.chatTemplate !== undefined : template === 'chat'
  return encodePrompt(prompt, tokenizer, { template: chat ? 'chat' : 'plain', separator })
}

export interface GenerateOptions extends Partial<GenerateSettings>, GeneratorOptions {
  /** How the prompt is written. Default: the chat template where the tokenizer has one; `none` takes the text as it is. */
  template?: 'none' | 'chat'
  /** Threads of the executor. Default: the cores of the machine. */
  threads?: number
}

/** A piece of a generation: the text that is final so far, and the tokens that the last step committed. */
export interface GenerateEvent {
  /** Text up to the first position that is still masked; it only grows. */
  text: string
  tokens: { position: number; token: number; step: number; confidence: number }[]
}

/**
 * Completes a prompt: for scripts that want one answer. Loads the model for this call alone; to generate again and again,
 * keep a `createGenerator`.
 *
 * @example
 * for await (const { text } of generate(await load('models/tiny'), 'reverse(stone)=', { template: 'none' })) console.log(text)
 */
export async function* generate(
  loaded: InferenceModel,
  prompt: string | readonly ChatMessage[],
  options: GenerateOptions = {},
): AsyncGenerator<GenerateEvent, GenerationResult & { text: string }, void> {
  const { template, threads, maxNewTokens = 128, mode, blockSize, ...settings } = options
  const executor = createExecutor(threads === undefined ? {} : { threads })
  try {
    const generator = await createGenerator(executor, loaded, {
      ...(mode ? { mode } : {}),
      ...(blockSize ? { blockSize } : {}),
    })
    const ids = promptIds(prompt, loaded, template ? { template } : {})
    const generation = generator.generate(ids, { ...settings, maxNewTokens })
    const known = new Map<number, number>()
    const text = (): string => {
      const final: number[] = []
      for (let i = ids.length; known.has(i); i++) final.push(known.get(i)!)
      return final.length === 0 ? '' : loaded.tokenizer.decode(final, { skipSpecialTokens: true })
    }
    let step: GenerateEvent['tokens'] = []
    for (;;) {
      const next = await generation.next()
      const ended = next.done || (step.length > 0 && next.value.step !== step[0]!.step)
      if (ended && step.length > 0) {
        yield { text: text(), tokens: step }
        step = []
      }
      if (next.done) {
        const result = next.value
        const decoded = result.ids.length === 0 ? '' : loaded.tokenizer.decode(result.ids, { skipSpecialTokens: true })
        return { ...result, text: decoded }
      }
      const { position, token, confidence } = next.value
      known.set(position, token)
      step.push({ position, token, step: next.value.step, confidence })
    }
  } finally {
    await executor.dispose()
  }
}
