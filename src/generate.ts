// Text generation with a loaded model: it decides between block decoding and next-token decoding, and turns prompts into
// tokens. How tokens are committed is the decoding layer's.

import type { Adapter } from './checkpoint/adapter.ts'
import { encodePrompt } from './data/index.ts'
import {
  type BlockOptions,
  type CommittedToken,
  type Constraint,
  type ConstraintSource,
  compileConstraint,
  createEngine,
  createVocabulary,
  defaultDecoding,
  type Engine,
  type Generation,
  type GenerationResult,
  type ScoreOptions,
  type StrategyName,
  type StrategyOptions,
  strategyNames,
  strategyReads,
  type TokenScore,
  type Vocabulary,
} from './decode/index.ts'
import type { InferenceModel, LoadedModel } from './load.ts'
import type { Recipe } from './recipe.ts'
import type { Executor } from './runtime/executor.ts'
import { createExecutor } from './runtime/onnxruntime/executor.ts'
import { endTokens } from './tokenizer/end-tokens.ts'
import { createTextStream } from './tokenizer/stream.ts'
import type { ChatMessage, Tokenizer } from './tokenizer/types.ts'
import { type Device, UserError } from './types.ts'

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

/** How a generator decodes: in blocks, one token after the other, or with drafts that are verified (see decode/strided.ts). */
export type DecodingMode = 'diffusion' | 'ar' | 'strided'

/**
 * Strategy and its settings, sampling, limits; what belongs to block decoding is an error in mode `ar`, and in mode `strided`
 * but for the threshold.
 */
export type GenerateSettings = Omit<BlockOptions, 'blockSize' | 'constraint'> & {
  /** Default: that of the generator. */
  blockSize?: number
  /** What the text must match; see docs/constraints.md. */
  constraint?: ConstraintSource
  /** The text ends before the first of these that it comes to hold. */
  stop?: readonly string[]
  /** Mode `strided`: tokens drafted at a time, and where masks stand (see `StridedOptions`). Default: as the adapter says. */
  masks?: number
  branchThreshold?: number
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
  /**
   * Steps as they come, then the result. With a stop string the result's `ids` end with the token that completed it.
   */
  generate(prompt: readonly number[], settings: GenerateSettings): Generation
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
    throw new UserError('an adapter drafts for an autoregressive model, in the only mode that there is for that')
  const mode = adapter ? 'strided' : (options.mode ?? (maskTokenId === undefined ? 'ar' : 'diffusion'))
  if (mode === 'diffusion' && maskTokenId === undefined) {
    throw new UserError('this model is autoregressive (no mask_token_id in config.json): convert it, or use mode ar')
  }
  const eosTokenIds = endTokens({ tokenizer, model, generationConfig })
  const engine = await createEngine(executor, model, parameters, {
    ...(maskTokenId === undefined ? {} : { maskTokenId }),
    eosTokenIds,
    shift: model.config.same_token_labels === false,
    softStates: model.config.soft_states === true,
    keepPrefixes: options.keepPrefixes ?? 0,
    ...(adapter ? { adapter: adapter.parameters } : {}),
  })
  const defaults = mode === 'diffusion' ? generationDefaults(generationConfig ?? {}) : {}
  const configuredSize = defaults.blockSize ?? (typeof configured === 'number' ? configured : 32)
  const usualSize = mode === 'ar' ? 1 : (adapter?.config.decoding.masks ?? configuredSize)
  const blockSize = mode === 'ar' ? 1 : (options.blockSize ?? usualSize)
  const diffusionOnly = (what: string) => {
    if (mode !== 'diffusion') throw new UserError(`${what} needs a diffusion model; this one decodes autoregressively`)
  }
  function start(
    prompt: readonly number[],
    settings: Omit<GenerateSettings, 'stop' | 'constraint'>,
    compiled: Pick<BlockOptions, 'constraint'>,
  ): Generation {
    if (mode === 'ar') return engine.generateAutoregressive(prompt, { ...settings, ...compiled })
    if (adapter) return engine.generateStrided(prompt, { ...adapter.config.decoding, masks: blockSize, ...settings })
    const { constraint: _, ...all } = withDefaults({ blockSize, ...settings }, generationConfig)
    return engine.generate(prompt, {
      ...{ ...all, ...compiled },
      ...{ maxNewTokens: settings.maxNewTokens, blockSize: settings.blockSize ?? blockSize },
    })
  }
  const compile = constraintCompiler(() =>
    createVocabulary({
      tokens: tokenizer.tokenBytes(),
      eosTokenIds,
      size: model.dimensions.vocabSize,
    }),
  )
  return {
    mode,
    blockSize,
    maskTokenId,
    endTokens: eosTokenIds,
    generate(prompt, { stop = [], ...settings }) {
      if (stop.some((text) => text === '')) throw new UserError('a stop string must not be empty')
      const { constraint, ...rest } = settings
      if (constraint !== undefined && stop.length > 0)
        throw new UserError(
          'stop and constraint contradict each other: a stop string would cut the text that must match',
        )
      if (constraint !== undefined && mode === 'strided')
        throw new UserError('a constraint cannot be kept while an adapter drafts yet; decode without the adapter')
      checkMode(rest, mode)
      const generation = start(prompt, rest, constraint === undefined ? {} : { constraint: compile(constraint) })
      return stop.length === 0 ? generation : stopAt(generation, prompt.length, tokenizer, stop)
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

/** Constraints that a generator keeps: clients send the same ones again and again. */
const KEPT_CONSTRAINTS = 16

function constraintCompiler(createVocabulary: () => Vocabulary): (source: ConstraintSource) => Constraint {
  let vocabulary: Vocabulary | undefined
  const known = new Map<string, Constraint>()
  return (source) => {
    const key = JSON.stringify(source)
    vocabulary ??= createVocabulary()
    const constraint = known.get(key) ?? compileConstraint(source, vocabulary)
    known.delete(key)
    known.set(key, constraint)
    if (known.size > KEPT_CONSTRAINTS) known.delete(known.keys().next().value as string)
    return constraint
  }
}

/** What `unmask tune` writes into generation_config.json. */
export type TunedSettings = Pick<
  BlockOptions,
  | 'strategy'
  | 'threshold'
  | 'tokensPerStep'
  | 'lowThreshold'
  | 'factor'
  | 'entropyBound'
  | 'editingThreshold'
  | 'bufferSize'
  | 'activation'
  | 'reuse'
  | 'selfVerify'
  | 'logitScale'
> & { blockSize?: number }

/** Settings of block decoding and their keys in generation_config.json. */
const tunedKeys = {
  blockSize: 'block_size',
  strategy: 'strategy',
  threshold: 'threshold',
  tokensPerStep: 'tokens_per_step',
  lowThreshold: 'low_threshold',
  factor: 'factor',
  entropyBound: 'entropy_bound',
  editingThreshold: 'editing_threshold',
  bufferSize: 'buffer_size',
  activation: 'activation',
  reuse: 'reuse',
  selfVerify: 'self_verify',
  logitScale: 'confidence_scale',
} as const satisfies Record<keyof TunedSettings, string>

/** Settings of block decoding in a generation_config.json; the engine checks them. */
export function generationDefaults(config: Readonly<Record<string, unknown>>): TunedSettings {
  const found = Object.entries(tunedKeys).filter(([, key]) => config[key] !== undefined && config[key] !== null)
  return Object.fromEntries(found.map(([name, key]) => [name, config[key]]))
}

/** The other way round: null for what is not set, so that a file keeps nothing of earlier settings. */
export const generationConfigOf = (settings: TunedSettings): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(tunedKeys).map(([name, key]) => [key, settings[name as keyof TunedSettings] ?? null]),
  )

const ruleKeys = [
  ...([
    'threshold',
    'stepsPerBlock',
    'tokensPerStep',
    'lowThreshold',
    'creditAlpha',
    'boostGamma',
    'decayBeta',
  ] as const),
  ...(['factor', 'entropyBound', 'editingThreshold', 'maxPostSteps'] as const),
] satisfies (keyof StrategyOptions)[]

/**
 * Settings with what a generation_config.json, or else unmask itself, says in place of what is missing. A strategy that is
 * named, or that a setting of its own implies, does not take the settings of another.
 */
export function withDefaults(
  settings: Partial<GenerateSettings>,
  config: Readonly<Record<string, unknown>> = {},
): Partial<GenerateSettings> {
  const tuned = generationDefaults(config)
  const { bufferSize, activation, reuse, selfVerify, logitScale, blockSize, ...rule } = tuned.strategy
    ? tuned
    : { ...defaultDecoding, ...tuned }
  const given = Object.fromEntries(
    Object.entries(settings).filter(([, value]) => value !== undefined),
  ) as Partial<GenerateSettings>
  const wanted = ruleKeys.filter((key) => given[key] !== undefined)
  const fits = (name: StrategyName) => wanted.every((key) => strategyReads(name, key))
  const strategy =
    given.strategy ?? [rule.strategy, ...strategyNames].find((name) => name && fits(name)) ?? rule.strategy
  const same = strategy === rule.strategy
  // Self-verification takes what the model would write by itself.
  const verify = given.constraint === undefined ? selfVerify : undefined
  // What one block at a time is for goes without a buffer, unless somebody asks for both.
  const single = given.selfVerify !== undefined || (same && verify !== undefined)
  const defaults = {
    ...{ blockSize, logitScale, strategy },
    ...(given.bufferSize === undefined && !single ? { bufferSize, activation } : {}),
    ...(same ? { reuse, selfVerify: verify, ...rule } : {}),
  }
  const known = Object.entries(defaults).filter(([, value]) => value !== undefined)
  return { ...Object.fromEntries(known), ...given }
}

/** Settings of block decoding that say nothing to a model that writes one token after the other. */
const blockSettings = [
  ...([
    'strategy',
    'threshold',
    'stepsPerBlock',
    'tokensPerStep',
    'lowThreshold',
    'creditAlpha',
    'boostGamma',
  ] as const),
  ...(['decayBeta', 'factor', 'entropyBound', 'editingThreshold', 'maxPostSteps', 'bufferSize', 'activation'] as const),
  ...(['reuse', 'selfVerify'] as const),
] satisfies (keyof GenerateSettings & keyof BlockOptions)[]

const stridedSettings = ['masks', 'branchThreshold'] as const

function checkMode(settings: Omit<GenerateSettings, 'constraint'>, mode: DecodingMode): void {
  const given = (keys: readonly Exclude<keyof GenerateSettings, 'constraint'>[]) =>
    keys.filter((key) => settings[key] !== undefined)
  const drafting = mode === 'strided' ? [] : given(stridedSettings)
  if (drafting.length > 0) throw new UserError(`${drafting.join(', ')}: only for decoding with an adapter that drafts`)
  if (mode === 'diffusion') return
  const blocks = given(blockSettings).filter((key) => !(mode === 'strided' && key === 'threshold'))
  if (blocks.length > 0)
    throw new UserError(`${blocks.join(', ')}: only for block decoding; this model decodes autoregressively`)
}

/** Ends a generation with the token that completes one of the stop strings. */
async function* stopAt(
  generation: Generation,
  promptTokens: number,
  tokenizer: Pick<Tokenizer, 'decode'>,
  stop: readonly string[],
): Generation {
  const longest = Math.max(...stop.map((text) => text.length))
  const known = new Map<number, number>()
  const stream = createTextStream(tokenizer)
  const ids: number[] = []
  let tail = ''
  const started = performance.now()
  let away = 0
  let prefillSeconds = 0
  try {
    for (let forwards = 1; ; forwards++) {
      const { done, value } = await generation.next()
      if (done) return value
      if (forwards === 1) prefillSeconds = (performance.now() - started) / 1000
      for (const { position, token } of value.tokens) known.set(position, token)
      while (promptTokens + ids.length < value.final) {
        const token = known.get(promptTokens + ids.length) as number
        ids.push(token)
        tail += stream.push([token])
        if (stop.some((text) => tail.includes(text))) {
          yield { ...value, final: promptTokens + ids.length }
          const seconds = (performance.now() - started - away) / 1000
          const tokens = ids.length
          return {
            ...{ ids, stop: 'stop', tokens, forwards, tpf: tokens / forwards, tps: tokens / seconds, seconds },
            ...{ promptTokens, cachedTokens: 0, prefillSeconds },
          }
        }
        if (tail.length > 4 * longest) tail = tail.slice(-longest)
      }
      const before = performance.now()
      yield value
      away += performance.now() - before
    }
  } finally {
    await generation.return(undefined as never)
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
  /** Default `cpu`. Throws UserError where the machine has no such device. */
  device?: Device
}

/** A piece of a generation: the text that is final so far, and the tokens that the last step committed. */
export interface GenerateEvent {
  /** Text up to the first position that may still change; it only grows. */
  text: string
  step: number
  tokens: CommittedToken[]
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
  const { template, threads, device, maxNewTokens = 128, mode, blockSize, ...settings } = options
  const executor = createExecutor({ ...(threads ? { threads } : {}), ...(device ? { device } : {}) })
  try {
    const generator = await createGenerator(executor, loaded, {
      ...(mode ? { mode } : {}),
      ...(blockSize ? { blockSize } : {}),
    })
    const ids = promptIds(prompt, loaded, template ? { template } : {})
    const generation = generator.generate(ids, { ...settings, maxNewTokens })
    return yield* streamText(generation, ids.length, loaded.tokenizer, settings.stop)
  } finally {
    await executor.dispose()
  }
}

/**
 * The text of a generation as it becomes final. `stop` are the strings that the generation was told to end at: the text ends
 * before them, and what may become one is held back.
 */
export async function* streamText(
  generation: Generation,
  promptTokens: number,
  tokenizer: Pick<Tokenizer, 'decode'>,
  stop: readonly string[] = [],
): AsyncGenerator<GenerateEvent, GenerationResult & { text: string }, void> {
  const stream = createTextStream(tokenizer)
  const known = new Map<number, number>()
  let next = promptTokens
  let whole = ''
  const firstStop = () => Math.min(...stop.map((text) => whole.indexOf(text)).filter((at) => at !== -1))
  try {
    for (;;) {
      const { done, value } = await generation.next()
      if (done) {
        whole += stream.end()
        const end = firstStop()
        return { ...value, text: Number.isFinite(end) ? whole.slice(0, end) : whole }
      }
      for (const { position, token } of value.tokens) known.set(position, token)
      for (; next < value.final; next++) whole += stream.push([known.get(next) as number])
      const end = firstStop()
      const shown = Number.isFinite(end) ? whole.slice(0, end) : withoutBeginning(whole, stop)
      yield { text: shown, step: value.step, tokens: value.tokens }
    }
  } finally {
    await generation.return(undefined as never)
  }
}

/** The text without what at its end may become a stop string. */
function withoutBeginning(text: string, stop: readonly string[]): string {
  const most = Math.min(text.length, Math.max(0, ...stop.map(({ length }) => length - 1)))
  for (let count = most; count > 0; count--) {
    const tail = text.slice(-count)
    if (stop.some((wanted) => wanted.startsWith(tail))) return text.slice(0, -count)
  }
  return text
}

/** What a recipe says about decoding, as settings; `strategy` and the like are left out for next-token decoding. */
export function decodeSettings(decode: Recipe['decode'], mode: DecodingMode): GenerateSettings {
  const sampling = {
    maxNewTokens: decode.max_new_tokens,
    temperature: decode.temperature,
    topK: decode.top_k,
    topP: decode.top_p,
    minP: decode.min_p,
    repetitionPenalty: decode.repetition_penalty,
  }
  const blocks = {
    strategy: decode.strategy,
    threshold: decode.threshold,
    stepsPerBlock: decode.steps_per_block,
    tokensPerStep: decode.tokens_per_step,
    lowThreshold: decode.low_threshold,
    factor: decode.factor,
    entropyBound: decode.entropy_bound,
    editingThreshold: decode.editing_threshold,
    maxPostSteps: decode.max_post_steps,
    bufferSize: decode.buffer_size,
    activation: decode.activation,
    reuse: decode.reuse,
    selfVerify: decode.self_verify,
    logitScale: decode.confidence_scale,
  }
  const strided = { threshold: decode.threshold }
  const all = { ...sampling, ...(mode === 'diffusion' ? blocks : mode === 'strided' ? strided : {}) }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as never
}
