// Text generation with a loaded model: it decides between block decoding and next-token decoding, and turns prompts into
// tokens. How tokens are committed is the decoding layer's.
import { encodePrompt } from './data/index.ts'
import { createEngine, type Generation } from './decode/index.ts'
import type { LoadedModel } from './load.ts'
import type { Executor } from './runtime/executor.ts'
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
  { model, parameters, tokenizer, generationConfig }: LoadedModel,
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
