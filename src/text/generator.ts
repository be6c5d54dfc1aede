// Text generation with a loaded model: it decides between block decoding and next-token decoding, and turns prompts into
// tokens. How tokens are committed is the decoding layer's.

import type { Adapter } from '../checkpoint/adapter.ts'
import type { InferenceModel } from '../checkpoint/load.ts'
import { UserError } from '../core/types.ts'
import {
  type BlockOptions,
  type Constraint,
  type ConstraintSource,
  checkMode,
  configuredSettings,
  createConstraintCompiler,
  createEngine,
  createVocabulary,
  type DecodingMode,
  type DecodingSettings,
  type Engine,
  type Generation,
  givenSettings,
  resolveSettings,
  type ScoreOptions,
  type TokenScore,
} from '../decode/index.ts'
import type { Executor } from '../runtime/executor.ts'
import { endTokens } from '../tokenizer/end-tokens.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import { assemble, type Writing } from './assemble.ts'

export interface GeneratorOptions {
  /** Default: `diffusion` where config.json has a mask token, else `ar`; `strided` with an adapter. */
  mode?: 'diffusion' | 'ar'
  /** Tokens decoded together. Default: `block_size` of config.json, else 32; with an adapter, as it was measured. */
  blockSize?: number
  /** An adapter that drafts what the model writes (`loadAdapterFor`). */
  adapter?: Adapter
  /** Finished texts whose keys and values are kept for prompts that begin like them. Default 0. */
  keepPrefixes?: number
}

/**
 * Settings of the table (decode/settings.ts), what the text must match and where it ends. A setting that the mode does not
 * read is an error. What is left out is the model's own (generation_config.json, the adapter's config), else the default.
 */
export interface GenerateSettings
  extends DecodingSettings,
    Pick<BlockOptions, 'logitBias' | 'logprobs' | 'signal' | 'sharing'> {
  /** What the text must match; see docs/constraints.md. */
  constraint?: ConstraintSource
  /** The text ends before the first of these that it comes to hold. */
  stop?: readonly string[]
}

/** A model that is ready to generate. */
export interface Generator {
  mode: DecodingMode
  /** Tokens that are decoded together, or drafted at a time; 1 for next-token decoding. */
  blockSize: number
  /** Token of a hole, and of what is not yet decided; undefined for autoregressive models. */
  maskTokenId: number | undefined
  /** Tokens that end a text. */
  endTokens: readonly number[]
  tokenizer: Tokenizer
  /** Steps as they come, then the result: for who wants tokens. */
  generate(prompt: readonly number[], settings: Omit<GenerateSettings, 'stop'>): Generation
  /** The text behind a prompt as it becomes final, then the result; see `assemble`. */
  write(prompt: readonly number[], settings: GenerateSettings): Writing
  /** See `Engine`. Throw UserError in mode `ar`. */
  fill: Engine['fill']
  rewrite: Engine['rewrite']
  /** Log-probabilities by token: exact in mode `ar`, else the evidence lower bound at `blockSize`. */
  score(ids: readonly number[], options?: ScoreOptions): Promise<(TokenScore | undefined)[]>
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
  const { adapter } = options
  if (adapter && (options.mode || maskTokenId !== undefined))
    throw new UserError('mode cannot be chosen with an adapter: it drafts for the autoregressive model')
  const mode = adapter ? 'strided' : (options.mode ?? (maskTokenId === undefined ? 'ar' : 'diffusion'))
  if (mode === 'diffusion' && maskTokenId === undefined) {
    throw new UserError('this model is autoregressive (no mask_token_id in config.json): convert it, or use mode ar')
  }
  const eosTokenIds = endTokens({ tokenizer, model, generationConfig })
  const engine = await createEngine(executor, model, parameters, {
    ...(maskTokenId === undefined ? {} : { maskTokenId }),
    eosTokenIds,
    specialTokenIds: tokenizer.specialTokenIds,
    shift: model.config.same_token_labels === false,
    softStates: model.config.soft_states === true,
    keepPrefixes: options.keepPrefixes ?? 0,
    ...(adapter ? { adapter: adapter.parameters } : {}),
  })
  const configuredSize =
    configuredSettings(generationConfig ?? {}).blockSize ?? (typeof configured === 'number' ? configured : 32)
  const usualSize = mode === 'ar' ? 1 : (adapter?.config.decoding.masks ?? configuredSize)
  const blockSize = mode === 'ar' ? 1 : (options.blockSize ?? usualSize)
  const diffusionOnly = (what: string) => {
    if (mode !== 'diffusion') throw new UserError(`${what} needs a diffusion model; this one decodes autoregressively`)
  }
  function start(
    prompt: readonly number[],
    settings: Omit<GenerateSettings, 'stop' | 'constraint'>,
    constraint: Constraint | undefined,
  ): Generation {
    if (mode === 'ar') return engine.generateAutoregressive(prompt, { ...settings, constraint })
    if (adapter)
      return engine.generateStrided(prompt, {
        ...adapter.config.decoding,
        masks: blockSize,
        ...givenSettings(settings),
        logitBias: settings.logitBias,
        logprobs: settings.logprobs,
        signal: settings.signal,
        sharing: settings.sharing,
      })
    const asked = { blockSize, ...givenSettings(settings) }
    const resolved = resolveSettings(asked, generationConfig, { constrained: constraint !== undefined })
    return engine.generate(prompt, { ...settings, ...resolved, blockSize: asked.blockSize, constraint })
  }
  const compile = createConstraintCompiler(() =>
    createVocabulary({
      tokens: tokenizer.tokenBytes(),
      eosTokenIds,
      size: model.dimensions.vocabSize,
    }),
  )
  function generate(prompt: readonly number[], settings: Omit<GenerateSettings, 'stop'>): Generation {
    const { constraint, ...rest } = settings
    if (constraint !== undefined && mode === 'strided')
      throw new UserError('constraints do not work with an adapter yet; decode without the adapter')
    checkMode(givenSettings(rest), mode)
    return start(prompt, rest, constraint && compile(constraint))
  }

  return {
    mode,
    blockSize,
    maskTokenId,
    endTokens: eosTokenIds,
    tokenizer,
    generate,
    write(prompt, { stop = [], ...settings }) {
      if (stop.some((text) => text === '')) throw new UserError('a stop string must not be empty')
      if (settings.constraint !== undefined && stop.length > 0)
        throw new UserError(
          'stop and constraint contradict each other: a stop string would cut the text that must match',
        )
      return assemble(generate(prompt, settings), { tokenizer, prompt, endTokens: eosTokenIds, stop })
    },
    fill(ids, settings) {
      diffusionOnly('filling')
      return engine.fill(ids, settings)
    },
    rewrite(ids, settings) {
      diffusionOnly('rewriting')
      return engine.rewrite(ids, settings)
    },
    score: (ids, options = {}) =>
      mode === 'ar' ? engine.scoreAutoregressive(ids, options) : engine.score(ids, { ...options, blockSize }),
    dispose: engine.dispose,
  }
}
