// Generates tokens with a loaded model: many per forward, block by block, or one per forward, autoregressively.
// Knows blocks, caches and when a text ends; which tokens a step commits is a strategy's choice. Uses no Node API.
import type { Dimensions, Model } from '../models/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { type InferenceParameter, UserError } from '../types.ts'
import type { Cache } from './cache.ts'
import { createForward } from './forward.ts'
import { threshold } from './strategies/threshold.ts'
import type { CommittedToken, Generation, GenerationResult, Strategy } from './types.ts'

export interface EngineOptions {
  /** Token that stands for a position not yet decided. It is never predicted. Needed for block decoding. */
  maskTokenId?: number
  /** Tokens that end a text. */
  eosTokenIds: readonly number[]
  /** In block decoding the state at i - 1 predicts token i, for models trained so. Default false. */
  shift?: boolean
}

export interface GenerateOptions {
  /** Most tokens after the prompt. Less where the model's positions end. */
  maxNewTokens: number
  /** 0: always the most probable token. Other temperatures are not supported yet. Default 0. */
  temperature?: number
  /** Multiplies the logits before the softmax that confidences come from. Default 1. */
  logitScale?: number
  /** Ends the generation at once with the signal's reason. */
  signal?: AbortSignal
}

export interface BlockOptions extends GenerateOptions {
  /** Positions that are decoded together; blocks start at multiples of it, counted from the start of the prompt. */
  blockSize: number
  /** Confidence above which a token is committed. Default 0.9. */
  threshold?: number
  /** Most denoising steps per block. Default: `blockSize`, at least one token per step. */
  stepsPerBlock?: number
}

export interface Engine {
  /** Block-diffusion decoding. Throws UserError for options or a prompt that make no sense. */
  generate(prompt: readonly number[], options: BlockOptions): Generation
  /** Greedy next-token decoding of an autoregressive model: the logits at position i predict token i + 1. */
  generateAutoregressive(prompt: readonly number[], options: GenerateOptions): Generation
  dispose(): Promise<void>
}

/** Runs a generation to its end. */
export async function complete(
  generation: Generation,
  onToken?: (token: CommittedToken) => void,
): Promise<GenerationResult> {
  for (;;) {
    const { done, value } = await generation.next()
    if (done) return value
    onToken?.(value)
  }
}

/** Positions per forward over a prompt: longer prompts are cached in parts, so that attention scores stay small. */
const PREFILL = 512

/**
 * Loads a model for decoding. The weights are copied into the session, so the caller may drop or change them.
 * One engine serves any number of generations, also at the same time: their state is their own.
 */
export async function createEngine(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
  { maskTokenId, eosTokenIds, shift = false }: EngineOptions,
): Promise<Engine> {
  const { dimensions } = model
  if (maskTokenId !== undefined) checkIds([maskTokenId], dimensions, 'the mask token')
  const forward = await createForward(executor, model, weights, maskTokenId === undefined ? [] : [maskTokenId])

  /** Caches complete blocks of the prompt until the rest, up to `end`, fits into one forward. */
  async function prefill(
    cache: Cache,
    ids: readonly number[],
    end: number,
    blockSize: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const part = Math.max(1, Math.floor(PREFILL / blockSize)) * blockSize
    while (end - cache.length > part) {
      const next = ids.slice(cache.length, cache.length + part)
      await forward.run(cache, { ids: next, blockSize, rows: [], store: part, signal })
    }
  }

  async function* blocks(prompt: readonly number[], options: BlockOptions, mask: number): Generation {
    const { blockSize, maxNewTokens, threshold: level = 0.9, stepsPerBlock, logitScale, signal } = options
    const strategy: Strategy = threshold({ threshold: level, blockSize, stepsPerBlock })
    const limit = Math.min(prompt.length + maxNewTokens, dimensions.maxPositions)
    const clock = stopwatch()
    const cache = forward.createCache()
    try {
      const ids = [...prompt]
      // Positions up to here are asked for: a committed EOS brings it forward.
      let end = limit
      let forwards = 0
      let prefillSeconds = 0
      let start = prompt.length - (prompt.length % blockSize)
      await prefill(cache, ids, start, blockSize, signal)
      for (; start < end; start += blockSize) {
        const stop = Math.min(start + blockSize, dimensions.maxPositions)
        let masked: number[] = []
        for (let i = ids.length; i < stop; i++) masked.push(i)
        for (const i of masked) ids[i] = mask
        for (let step = 0; masked[0] < end; step++) {
          // What lies between the cache and this block is final: the rest of the prompt, or the block before.
          const { length } = cache
          // With a shift the token before the block predicts too, so it stays out of the cache.
          const before = shift ? 1 : 0
          const rows = masked.map((i) => i - before - length)
          const store = Math.max(0, start - before - length)
          const request = { ids: ids.slice(length), blockSize, rows, store, logitScale, signal }
          const predictions = await forward.run(cache, request)
          const { commit } = strategy({ step, masked: masked.map((i) => i - start) }, predictions)
          const committed = commit.map((i) => ({
            position: masked[i],
            token: predictions.tokens[i],
            step: forwards,
            confidence: predictions.confidence[i],
            block: Math.floor(masked[i] / blockSize),
          }))
          for (const { position, token } of committed) {
            ids[position] = token
            if (eosTokenIds.includes(token)) end = Math.min(end, position + 1)
          }
          masked = masked.filter((i) => !committed.some(({ position }) => position === i))
          forwards++
          clock.pause()
          if (forwards === 1) prefillSeconds = clock.seconds()
          yield* committed
          clock.resume()
        }
      }
      clock.pause()
      return result(prompt, ids.slice(prompt.length, end), { forwards, prefillSeconds, seconds: clock.seconds() })
    } finally {
      await cache.free()
    }
  }

  async function* nextTokens(prompt: readonly number[], options: GenerateOptions): Generation {
    const { maxNewTokens, logitScale, signal } = options
    const limit = Math.min(prompt.length + maxNewTokens, dimensions.maxPositions)
    const clock = stopwatch()
    const cache = forward.createCache()
    try {
      const ids = [...prompt]
      let forwards = 0
      let prefillSeconds = 0
      await prefill(cache, ids, ids.length, 1, signal)
      for (let ended = false; !ended && ids.length < limit; ) {
        const next = ids.slice(cache.length)
        const request = { ids: next, blockSize: 1, rows: [next.length - 1], store: next.length, logitScale, signal }
        const { tokens, confidence } = await forward.run(cache, request)
        const committed = { position: ids.length, token: tokens[0], confidence: confidence[0], block: ids.length }
        ids.push(committed.token)
        ended = eosTokenIds.includes(committed.token)
        forwards++
        clock.pause()
        if (forwards === 1) prefillSeconds = clock.seconds()
        yield { ...committed, step: forwards - 1 }
        clock.resume()
      }
      clock.pause()
      return result(prompt, ids.slice(prompt.length), { forwards, prefillSeconds, seconds: clock.seconds() })
    } finally {
      await cache.free()
    }
  }

  function result(
    prompt: readonly number[],
    ids: number[],
    { forwards, seconds, prefillSeconds }: Pick<GenerationResult, 'forwards' | 'seconds' | 'prefillSeconds'>,
  ): GenerationResult {
    const tokens = ids.length
    return {
      ids,
      stop: eosTokenIds.includes(ids[tokens - 1]) ? 'eos' : 'length',
      tokens,
      forwards,
      tpf: tokens / forwards,
      tps: tokens / seconds,
      seconds,
      promptTokens: prompt.length,
      prefillSeconds,
    }
  }

  return {
    generate(prompt, options) {
      checkPrompt(prompt, dimensions)
      checkOptions(options)
      if (shift && prompt.length === 0)
        throw new UserError(
          'this model predicts each token from the one before it: give a prompt of at least one token',
        )
      whole('blockSize', options.blockSize)
      if (options.stepsPerBlock !== undefined) whole('stepsPerBlock', options.stepsPerBlock)
      if (options.threshold !== undefined && !(options.threshold >= 0))
        throw new UserError(`threshold must be 0 or more, got ${options.threshold}`)
      if (maskTokenId === undefined)
        throw new UserError(
          'block decoding needs a mask token: this model is autoregressive (its config.json has no mask_token_id); convert it first, or decode it autoregressively',
        )
      return blocks(prompt, options, maskTokenId)
    },
    generateAutoregressive(prompt, options) {
      checkPrompt(prompt, dimensions)
      checkOptions(options)
      if (prompt.length === 0) throw new UserError('autoregressive decoding needs a prompt of at least one token')
      return nextTokens(prompt, options)
    },
    dispose: () => forward.dispose(),
  }
}

function checkOptions({ maxNewTokens, temperature = 0, logitScale = 1 }: GenerateOptions): void {
  whole('maxNewTokens', maxNewTokens)
  if (temperature !== 0) throw new UserError(`temperature must be 0 (the most probable token), got ${temperature}`)
  if (!(logitScale > 0)) throw new UserError(`logitScale must be above 0, got ${logitScale}`)
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
