// Text generation with a loaded model: it decides between block decoding and next-token decoding, and turns prompts into
// tokens. How tokens are committed is the decoding layer's.

import type { Adapter } from '../checkpoint/adapter.ts'
import type { InferenceModel } from '../checkpoint/load.ts'
import { UserError } from '../core/types.ts'
import {
  type BlockOptions,
  type Constraint,
  type ConstraintSource,
  checkedMode,
  checkMode,
  createConstraintCompiler,
  createEngine,
  createVocabulary,
  type DecodingMode,
  type DecodingSettings,
  type Engine,
  type Generation,
  givenSettings,
  modelDecoding,
  resolveSettings,
  type ScoreOptions,
  settingDefault,
  settingsOfMode,
  type TokenScore,
  type Vocabulary,
} from '../decode/index.ts'
import type { Executor } from '../runtime/executor.ts'
import { endTokens } from '../tokenizer/end-tokens.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import { assemble, type Writing } from './assemble.ts'

export interface GeneratorOptions {
  /**
   * How texts are written that do not say so themselves. Default: the model's own (generation_config.json), else
   * `speculative` for models of the objective hybrid and with an adapter, `diffusion` for others with a mask token, `ar` for
   * the rest.
   */
  mode?: DecodingMode
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
  /** What the text must match; see docs/constraints.md. A source is compiled at once, which may take some tenths of a second. */
  constraint?: ConstraintSource | Constraint
  /** The text ends before the first of these that it comes to hold. */
  stop?: readonly string[]
}

/** A model that is ready to generate. */
export interface Generator {
  mode: DecodingMode
  /** The modes that a text may ask for. */
  modes: readonly DecodingMode[]
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
  /** For constraints that are compiled elsewhere (`compileSource`, `constraintOf`). Throws UserError where tokens have no bytes. */
  vocabulary(): Vocabulary
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
  loaded: InferenceModel,
  options: GeneratorOptions = {},
): Promise<Generator> {
  const { model, parameters, tokenizer, generationConfig } = loaded
  const { adapter } = options
  const decoding = modelDecoding(loaded, adapter?.config.decoding)
  const { maskTokenId, causalContext, modes } = decoding
  const mode = checkedMode(options.mode ?? decoding.mode, modes)
  const eosTokenIds = endTokens({ tokenizer, model, generationConfig })
  const engine = await createEngine(executor, model, parameters, {
    maskTokenId,
    eosTokenIds,
    specialTokenIds: tokenizer.specialTokenIds,
    bytesOf: tokenizer.bytesOf,
    shift: model.config.same_token_labels === false,
    softStates: model.config.soft_states === true,
    noisedGroups: model.config.noised_groups === true,
    causalContext,
    keepPrefixes: options.keepPrefixes ?? 0,
    adapter: adapter?.parameters,
  })
  /** Tokens that are decoded together, or masks of a draft. */
  const size = options.blockSize ?? decoding.blockSize
  const blockSize = mode === 'ar' ? 1 : size
  const blocksOnly = (what: string) => {
    if (!modes.includes('diffusion') || causalContext)
      throw new UserError(`${what} needs a model of block diffusion; this one writes from left to right`)
  }

  function speculative(
    prompt: readonly number[],
    settings: Omit<GenerateSettings, 'stop' | 'constraint'>,
    constraint: Constraint | undefined,
  ): Generation {
    const { mode: asked = mode, logitBias, logprobs, signal, sharing, ...given } = settings
    const { threshold, masks: _, ...rest } = settingsOfMode(decoding.settings, 'speculative')
    const own = adapter ? adapter.config.decoding : rest
    // A threshold that the model's files name is not for drafts that are all to be checked.
    const lossy = asked === 'diffusion' ? { threshold: threshold ?? settingDefault('threshold') } : {}
    const masks = adapter || causalContext ? { masks: size } : {}
    const drafts = { ...own, ...lossy, ...masks, ...givenSettings(given) }
    return engine.generateSpeculative(prompt, { ...drafts, constraint, logitBias, logprobs, signal, sharing })
  }

  function start(
    prompt: readonly number[],
    settings: Omit<GenerateSettings, 'stop' | 'constraint'>,
    constraint: Constraint | undefined,
  ): Generation {
    const asked = checkedMode(settings.mode ?? mode, modes)
    // Blocks of a model whose text is causal are drafts.
    const way = causalContext && asked === 'diffusion' ? 'speculative' : asked
    checkMode(givenSettings(settings), way)
    if (way === 'ar') return engine.generateAutoregressive(prompt, { ...settings, constraint })
    if (way === 'speculative') return speculative(prompt, settings, constraint)
    const given = { blockSize: size, ...givenSettings(settings) }
    const resolved = resolveSettings(given, generationConfig, { constrained: constraint !== undefined })
    return engine.generate(prompt, { ...settings, ...resolved, blockSize: given.blockSize, constraint })
  }
  let known: Vocabulary | undefined
  const vocabulary = (): Vocabulary => {
    known ??= createVocabulary({ tokens: tokenizer.tokenBytes(), eosTokenIds, size: model.dimensions.vocabSize })
    return known
  }
  const compile = createConstraintCompiler(vocabulary)
  function generate(prompt: readonly number[], settings: Omit<GenerateSettings, 'stop'>): Generation {
    const { constraint, ...rest } = settings
    return start(prompt, rest, constraint && ('type' in constraint ? compile(constraint) : constraint))
  }

  return {
    mode,
    modes,
    blockSize,
    maskTokenId,
    endTokens: eosTokenIds,
    tokenizer,
    generate,
    vocabulary,
    write(prompt, { stop = [], ...settings }) {
      if (stop.some((text) => text === '')) throw new UserError('a stop string must not be empty')
      if (settings.constraint !== undefined && stop.length > 0)
        throw new UserError(
          'stop and constraint contradict each other: a stop string would cut the text that must match',
        )
      return assemble(generate(prompt, settings), { tokenizer, prompt, endTokens: eosTokenIds, stop })
    },
    fill(ids, settings) {
      blocksOnly('filling')
      return engine.fill(ids, settings)
    },
    rewrite(ids, settings) {
      blocksOnly('rewriting')
      return engine.rewrite(ids, settings)
    },
    score: (ids, options = {}) =>
      mode === 'diffusion' && !causalContext
        ? engine.score(ids, { ...options, blockSize })
        : engine.scoreAutoregressive(ids, options),
    dispose: engine.dispose,
  }
}
