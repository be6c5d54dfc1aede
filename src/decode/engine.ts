// Generates tokens with a loaded model: many per forward, block by block, or one per forward, autoregressively.
// Checks what is asked for and keeps the books; blocks.ts decodes, and which tokens a step commits is a strategy's choice.
// Uses no Node API.
import type { Dimensions, Model } from '../models/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { type InferenceParameter, type Parameter, UserError } from '../types.ts'
import { type BlockSettings, type Document, decodeBlocks, PREFILL } from './blocks.ts'
import type { Cache } from './cache.ts'
import type { Constraint } from './constraints/index.ts'
import { createForward } from './forward.ts'
import { createPredictor } from './predict.ts'
import { checkSampling, needsLogits, type SamplingOptions } from './sampling.ts'
import { type ScoreOptions, scoreAutoregressive, scoreBlocks, type TokenScore } from './score.ts'
import { checkSettings, type DecodingSettings, givenSettings, resolveSettings, settingDefault } from './settings.ts'
import { createStrategy } from './strategies/index.ts'
import { decodeStrided } from './strided.ts'
import type { DecodeStep, Generation, GenerationResult } from './types.ts'

export interface EngineOptions {
  /** Token that stands for a position not yet decided. It is never predicted. Needed for block decoding. */
  maskTokenId?: number
  /** Tokens that end a text. */
  eosTokenIds: readonly number[]
  /** Tokens without a text of their own: none is written into a hole or in mending. Default none. */
  specialTokenIds?: readonly number[]
  /** In block decoding the state at i - 1 predicts token i, for models trained so. Default false. */
  shift?: boolean
  /**
   * Finished texts whose keys and values are kept, for prompts that begin like them; each takes the memory of a cache.
   * Default 0: only texts that are being generated share theirs.
   */
  keepPrefixes?: number
  /** The model was trained with positions between mask and token: for the strategy `soft`. Default false. */
  softStates?: boolean
  /** Parameters of an adapter that drafts, as `loadDecodeProgram` takes them: for `generateStrided`. */
  adapter?: ReadonlyMap<string, Parameter>
}

/** Settings of the table (./settings.ts) and what only a request can say. What is left out has the table's default. */
export interface GenerateOptions extends DecodingSettings, SamplingOptions {
  /** What the text must match, whichever order its tokens are decided in. */
  constraint?: Constraint | undefined
  /** Ends the generation at once with the signal's reason. */
  signal?: AbortSignal | undefined
}

export interface StridedOptions extends Omit<GenerateOptions, 'constraint'> {
  masks: number
}

export interface BlockOptions extends GenerateOptions {
  /** Positions that are decoded together; blocks start at multiples of it, counted from the start of the prompt. */
  blockSize: number
}

export interface FillOptions extends Omit<BlockOptions, 'maxNewTokens' | 'constraint' | 'selfVerify'> {
  /**
   * Positions where a token that ends a text may stand: `nowhere`, `anywhere` (a hole then is as long as its text at most), or
   * from one on. Elsewhere a hole would seem to be filled with nothing, and surely. Default `nowhere`.
   */
  ends?: 'nowhere' | 'anywhere' | { from: number }
  /** Tokens behind a hole that its block extends over, so that they are seen. Default: the block size. */
  rightContext?: number
}

export interface Engine {
  /** Block-diffusion decoding. Throws UserError for options or a prompt that make no sense. */
  generate(prompt: readonly number[], options: BlockOptions): Generation
  /** Next-token decoding of an autoregressive model: the logits at position i predict token i + 1. */
  generateAutoregressive(prompt: readonly number[], options: GenerateOptions): Generation
  /**
   * The text of `generateAutoregressive`, or with a temperature one of its distribution, in fewer forwards: an adapter
   * drafts it and the model verifies the drafts; see strided.ts.
   */
  generateStrided(prompt: readonly number[], options: StridedOptions): Generation
  /**
   * Fills the holes of a text: positions whose token is the mask. A hole sees what is before it and, as block-diffusion
   * attention looks ahead within a block only, `rightContext` tokens behind it, over which its block extends. The result's
   * `ids` are the whole text. Tokens that end a text are not written unless `ends` lets them; nothing ends at them.
   */
  fill(ids: readonly number[], options: FillOptions): Generation
  /**
   * Lets the strategy `edit` correct a text from position `from` on, for models trained to correct tokens. The result's `ids`
   * are the whole text, which ends where it ended.
   */
  rewrite(
    ids: readonly number[],
    options: Omit<BlockOptions, 'maxNewTokens' | 'strategy' | 'constraint' | 'selfVerify'> & { from?: number },
  ): Generation
  /** The evidence lower bound of a text at a block size, by token; see `scoreBlocks`. */
  score(ids: readonly number[], options: ScoreOptions & { blockSize: number }): Promise<(TokenScore | undefined)[]>
  /** Exact log-probabilities of a text under an autoregressive model; undefined for the first token. */
  scoreAutoregressive(ids: readonly number[], options?: ScoreOptions): Promise<(TokenScore | undefined)[]>
  dispose(): Promise<void>
}

/** Runs a generation to its end. */
export async function complete(generation: Generation, onStep?: (step: DecodeStep) => void): Promise<GenerationResult> {
  for (;;) {
    const { done, value } = await generation.next()
    if (done) return value
    onStep?.(value)
  }
}

/**
 * Loads a model for decoding. The weights are copied into the session, so the caller may drop or change them.
 * One engine serves any number of generations, also at the same time: their state is their own.
 */
export async function createEngine(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
  options: EngineOptions,
): Promise<Engine> {
  const { maskTokenId, eosTokenIds, specialTokenIds = [] } = options
  const { shift = false, keepPrefixes = 0, softStates = false, adapter } = options
  const unwritten = specialTokenIds.filter((id) => !eosTokenIds.includes(id))
  const noText = [...unwritten, ...eosTokenIds]
  const { dimensions } = model
  if (maskTokenId !== undefined) checkIds([maskTokenId], dimensions, 'the mask token')
  const forbidden = maskTokenId === undefined ? [] : [maskTokenId]
  const forward = await createForward(executor, model, weights, forbidden, {
    keep: keepPrefixes,
    softMask: softStates ? maskTokenId : undefined,
    ...(adapter ? { adapter } : {}),
  })

  /** One past the last position asked for; less where the model's positions end. */
  const endOf = (prompt: readonly number[], { maxNewTokens = settingDefault('maxNewTokens') }: DecodingSettings) =>
    Math.min(prompt.length + maxNewTokens, dimensions.maxPositions)

  function settingsOf(
    options: DecodingSettings & GenerateOptions,
    forbiddenAt?: (position: number) => readonly number[],
  ): BlockSettings {
    checkOptions(options, dimensions)
    const resolved = resolveSettings(options)
    const { strategy: name, blockSize, reuse, selfVerify, logitScale } = resolved
    const bufferSize = resolved.bufferSize!
    if (options.activation !== undefined && bufferSize === 1)
      throw new UserError('activation says when a further block joins the buffer, but bufferSize is 1')
    const strategy = createStrategy(name, resolved)
    if (strategy.softStates && !softStates)
      throw new UserError(
        `the strategy ${name} is for models of on-policy uniform training, such as DMax's, whose config.json says "soft_states": true; this one's does not`,
      )
    if (strategy.edits && reuse)
      throw new UserError(`the strategy ${name} looks at tokens again whose rows reuse leaves out: choose one of them`)
    if (maskTokenId === undefined)
      throw new UserError(
        'block decoding needs a mask token: this model is autoregressive (its config.json has no mask_token_id); convert it first, or decode it autoregressively',
      )
    if (blockSize === undefined) throw new UserError('block decoding needs a block size')
    if (selfVerify !== undefined) {
      if (forbiddenAt)
        throw new UserError('selfVerify is for new text: leave it out when a text is filled or corrected')
      const others = [strategy.edits && `strategy ${name}`, bufferSize > 1 && 'bufferSize', reuse && 'reuse']
      const wrong = [
        ...others,
        options.constraint && 'constraint',
        needsLogits(options) && 'sampling, penalties, biases or log-probabilities',
      ]
      const first = wrong.find((what) => typeof what === 'string')
      if (first) throw new UserError(`selfVerify is for greedy decoding of one block at a time: leave out ${first}`)
    }
    const logits = (strategy.needsLogits ?? false) || options.constraint !== undefined
    return {
      strategy,
      predictor: createPredictor(options, { forbidden, forbiddenAt, logits }),
      maskTokenId,
      shift,
      bufferSize,
      activation: resolved.activation ?? 0,
      reuse: reuse!,
      selfVerify,
      logitScale,
      signal: options.signal,
    }
  }

  async function* blocks(document: Document, settings: BlockSettings, from: number): Generation {
    const books = keepBooks(document.ids.length)
    const shared = typeof document.blocks === 'number' && !settings.reuse && document.holes === undefined
    const cache = shared
      ? await forward.openCache({ tokens: document.ids, blockSize: document.blocks as number })
      : forward.createCache()
    books.cached(cache)
    try {
      const decoding = decodeBlocks(forward, cache, document, settings)
      for (;;) {
        const { done, value } = await decoding.next()
        if (done) return books.result(value.slice(from))
        books.forward()
        const enough = yield value
        books.resume()
        if (enough) return books.result(enough, 'stop')
      }
    } finally {
      await cache.free()
    }
  }

  async function* nextTokens(prompt: readonly number[], options: GenerateOptions): Generation {
    const { logitScale, constraint, signal } = options
    const limit = endOf(prompt, options)
    const predictor = createPredictor(options, { forbidden, logits: constraint !== undefined })
    const tracker = constraint?.begin({ maxTokens: limit - prompt.length })
    const common = { blockSize: 1, ...(logitScale === undefined ? {} : { logitScale }), ...(signal ? { signal } : {}) }
    const books = keepBooks(prompt.length)
    const cache = await forward.openCache({ tokens: prompt, blockSize: 1 })
    books.cached(cache)
    try {
      const ids = [...prompt]
      while (ids.length - cache.length > PREFILL) {
        const next = ids.slice(cache.length, cache.length + PREFILL)
        await forward.run(cache, { ...common, ids: next, rows: [], store: PREFILL })
      }
      const ended = () => ids.length > prompt.length && eosTokenIds.includes(ids[ids.length - 1])
      for (let step = 0; !ended() && ids.length < limit; step++) {
        const next = ids.slice(cache.length)
        const { logits } = predictor
        const result = await forward.run(cache, {
          ...{ ...common, ids: next, rows: [next.length - 1], store: next.length, logits },
        })
        const position = ids.length
        tracker?.open(1)
        const allowed = tracker && (() => ({ tokens: tracker.allowed(step), leading: true }))
        const { tokens, details } = predictor.predict(result, 0, [position], step, () => ids, allowed)
        const [token] = tokens
        tracker?.commit(step, token)
        tracker?.settle(step + 1)
        ids.push(token)
        books.forward()
        const committed = { position, token, block: position, ...details(0, token) }
        const enough = yield { step, tokens: [committed], final: position + 1 }
        books.resume()
        if (enough) return books.result(enough, 'stop')
      }
      return books.result(ids.slice(prompt.length))
    } finally {
      await cache.free()
    }
  }

  async function* strided(prompt: readonly number[], options: StridedOptions): Generation {
    const { masks, logitScale, signal } = options
    const { draftThreshold = settingDefault('draftThreshold'), branchThreshold = settingDefault('branchThreshold') } =
      options
    const end = endOf(prompt, options)
    const predictor = createPredictor(options, { forbidden })
    const books = keepBooks(prompt.length)
    const cache = await forward.openCache({ tokens: prompt, blockSize: 1 })
    books.cached(cache)
    try {
      const decoding = decodeStrided(
        forward,
        cache,
        { prompt, end, eosTokenIds },
        {
          masks,
          draftThreshold,
          branchThreshold,
          predictor,
          sampling: options,
          logitScale,
          signal,
        },
      )
      for (;;) {
        const { done, value } = await decoding.next()
        if (done) return books.result(value.slice(prompt.length))
        books.forward()
        const enough = yield value
        books.resume()
        if (enough) return books.result(enough, 'stop')
      }
    } finally {
      await cache.free()
    }
  }

  /** Counts forwards and the time without the consumer's. */
  function keepBooks(promptTokens: number) {
    const clock = stopwatch()
    let forwards = 0
    let prefillSeconds = 0
    let cachedTokens = 0
    return {
      cached(cache: Cache) {
        cachedTokens = cache.length
      },
      forward() {
        clock.pause()
        forwards++
        if (forwards === 1) prefillSeconds = clock.seconds()
      },
      resume: clock.resume,
      result(
        ids: readonly number[],
        stop: GenerationResult['stop'] = eosTokenIds.includes(ids[ids.length - 1]) ? 'eos' : 'length',
      ): GenerationResult {
        clock.pause()
        const tokens = ids.length
        const seconds = clock.seconds()
        return {
          ids: [...ids],
          stop,
          tokens,
          forwards,
          tpf: tokens / forwards,
          tps: tokens / seconds,
          seconds,
          promptTokens,
          cachedTokens,
          prefillSeconds,
        }
      },
    }
  }

  const most = dimensions.maxPositions

  return {
    generate(prompt, options) {
      checkPrompt(prompt, dimensions)
      const settings = settingsOf(options)
      const { blockSize } = options
      if (shift && prompt.length === 0)
        throw new UserError(
          'this model predicts each token from the one before it: give a prompt of at least one token',
        )
      const end = endOf(prompt, options)
      const tracker = options.constraint?.begin({ maxTokens: end - prompt.length })
      const document = { ids: prompt, end, most, blocks: blockSize, eosTokenIds, ...(tracker ? { tracker } : {}) }
      return blocks(document, settings, prompt.length)
    },
    generateAutoregressive(prompt, options) {
      checkPrompt(prompt, dimensions)
      checkOptions(options, dimensions)
      if (prompt.length === 0) throw new UserError('autoregressive decoding needs a prompt of at least one token')
      return nextTokens(prompt, options)
    },
    generateStrided(prompt, options) {
      if (!adapter) throw new UserError('strided decoding needs an adapter that drafts (unmask accelerate makes one)')
      checkPrompt(prompt, dimensions)
      checkOptions(options, dimensions)
      if (prompt.length === 0) throw new UserError('autoregressive decoding needs a prompt of at least one token')
      return strided(prompt, options)
    },
    fill(ids, options) {
      const { blockSize, rightContext = blockSize, ends = 'nowhere' } = options
      const from = ends === 'nowhere' ? Number.POSITIVE_INFINITY : ends === 'anywhere' ? 0 : ends.from
      const settings = settingsOf(options, (position) => (position >= from ? unwritten : noText))
      if (!Number.isSafeInteger(rightContext) || rightContext < 0)
        throw new UserError(`rightContext must be a whole number of at least 0, got ${rightContext}`)
      checkText(ids, dimensions)
      const holes = new Set(ids.flatMap((id, i) => (id === maskTokenId ? [i] : [])))
      if (holes.size === 0) throw new UserError('there is nothing to fill: the text has no mask token')
      if (shift && holes.has(0))
        throw new UserError('this model predicts each token from the one before it: the first token cannot be a hole')
      const starts = blocksAroundHoles(holes, ids.length, blockSize, rightContext)
      const document = { ids, holes, end: ids.length, most: ids.length, blocks: starts, eosTokenIds: [] }
      return blocks(document, settings, 0)
    },
    rewrite(ids, { from = 0, ...options }) {
      checkText(ids, dimensions)
      const settings = settingsOf({ ...options, strategy: 'edit' }, () => noText)
      const first = Math.max(from, shift ? 1 : 0)
      if (!Number.isSafeInteger(from) || from < 0 || first >= ids.length)
        throw new UserError(`there is nothing to rewrite from position ${from} of ${ids.length} on`)
      const document = { ids, editableFrom: first, end: ids.length, most: ids.length, eosTokenIds: [] }
      return blocks({ ...document, blocks: options.blockSize }, settings, 0)
    },
    async score(ids, options) {
      checkText(ids, dimensions)
      whole('blockSize', options.blockSize)
      if (options.samples !== undefined) whole('samples', options.samples)
      if (maskTokenId === undefined) throw new UserError('the lower bound needs a mask token; score autoregressively')
      return scoreBlocks(forward, ids, { ...options, maskTokenId, shift, maxPositions: most })
    },
    async scoreAutoregressive(ids, options = {}) {
      checkText(ids, dimensions)
      return scoreAutoregressive(forward, ids, { ...options, vocabSize: dimensions.vocabSize })
    },
    dispose: () => forward.dispose(),
  }
}

/** Starts of blocks: multiples of the size, but none between a hole and `right` positions behind it. */
function blocksAroundHoles(holes: ReadonlySet<number>, length: number, size: number, right: number): number[] {
  const starts: number[] = []
  let inside = -1
  for (let i = 0; i < length; i++) {
    if (i % size === 0 && i > inside) starts.push(i)
    if (holes.has(i)) inside = Math.min(i + right, length - 1)
  }
  return starts
}

function checkOptions(options: DecodingSettings & SamplingOptions, { vocabSize }: Dimensions): void {
  checkSettings(givenSettings(options))
  checkSampling(options, vocabSize)
}

function whole(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new UserError(`${name} must be a whole number of at least 1, got ${value}`)
}

function checkPrompt(prompt: readonly number[], dimensions: Dimensions): void {
  const { maxPositions } = dimensions
  if (prompt.length >= maxPositions)
    throw new UserError(
      `the prompt has ${prompt.length} tokens, but the model's ${maxPositions} positions must also hold the answer; shorten it`,
    )
  checkIds(prompt, dimensions, 'the prompt')
}

function checkText(ids: readonly number[], dimensions: Dimensions): void {
  if (ids.length > dimensions.maxPositions)
    throw new UserError(
      `the text has ${ids.length} tokens, but the model ${dimensions.maxPositions} positions; shorten it`,
    )
  checkIds(ids, dimensions, 'the text')
}

function checkIds(ids: readonly number[], { vocabSize }: Dimensions, what: string): void {
  for (const id of ids)
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      throw new UserError(`${what} holds the token id ${id}, but the model's vocabulary has ${vocabSize} entries`)
}

/** Time since the start without the pauses. */
function stopwatch() {
  let total = 0
  let since = performance.now()
  return {
    pause() {
      total += performance.now() - since
    },
    resume() {
      since = performance.now()
    },
    seconds: () => total / 1000,
  }
}
