// Generates tokens with a loaded model: many per forward, block by block, or one per forward, autoregressively.
// Checks what is asked for; how it is decoded is the business of blocks, autoregressive.ts and speculative.ts, and which tokens a
// step commits is a strategy's choice. Uses no Node API.

import { type Parameter, SettingError, UserError } from '../core/types.ts'
import type { Model } from '../models/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { decodeAutoregressive } from './autoregressive.ts'
import { blockSettings, checkOptions } from './block-settings.ts'
import { type BlockSettings, type Document, decodeBlocks } from './blocks/index.ts'
import type { Sharing } from './cache.ts'
import { checkAutoregressivePrompt, checkCount, checkIds, checkPrompt, checkText } from './checks.ts'
import type { Constraint } from './constraints/index.ts'
import { createDraftRates } from './draft-rates.ts'
import { createForward } from './forward.ts'
import type { DecodeWeights } from './forward-program.ts'
import { generation } from './generation.ts'
import { createPredictor } from './predict.ts'
import type { SamplingOptions } from './sampling.ts'
import { type ScoreOptions, scoreAutoregressive, scoreBlocks, type TokenScore } from './score.ts'
import { type DecodingSettings, settingDefault } from './settings.ts'
import { decodeSpeculative } from './speculative.ts'
import type { DecodeStep, Generation, GenerationResult } from './types.ts'

export interface EngineOptions {
  /** Token that stands for a position not yet decided. It is never predicted. Needed for block decoding. */
  maskTokenId?: number
  /** Tokens that end a text. */
  eosTokenIds: readonly number[]
  /** Tokens without a text of their own: none is written into a hole or in mending. Default none. */
  specialTokenIds?: readonly number[]
  /** The bytes of a token's text, for drafts from earlier text; undefined for tokens without. Default: no token has any. */
  bytesOf?: (token: number) => Uint8Array | undefined
  /** In block decoding the state at i - 1 predicts token i, for models trained so. Default false. */
  shift?: boolean
  /**
   * Finished texts whose keys and values are kept, for prompts that begin like them; each takes the memory of a cache.
   * Default 0: only texts that are being generated share theirs.
   */
  keepPrefixes?: number
  /** The model was trained with positions between mask and token: for the strategy `soft`. Default false. */
  softStates?: boolean
  /** The model was trained with blocks noised in groups (`group_size`): with `shift`, none waits for the one before it. Default false. */
  noisedGroups?: boolean
  /** Text sees only what is before it, in blocks too: the model checks its own drafts. Default false. */
  causalContext?: boolean
  /** Parameters of an adapter that drafts, as `loadDecodeProgram` takes them: for `generateSpeculative`. */
  adapter?: ReadonlyMap<string, Parameter>
}

/** Settings of the table (./settings.ts) and what only a request can say. What is left out has the table's default. */
export interface GenerateOptions extends DecodingSettings, SamplingOptions {
  /** What the text must match, whichever order its tokens are decided in. */
  constraint?: Constraint | undefined
  /** Whose keys and values a prompt may share, and how finely. Default: those of all, token by token. */
  sharing?: Sharing | undefined
  /** Ends the generation at once with the signal's reason. */
  signal?: AbortSignal | undefined
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
   * The text of `generateAutoregressive`, or with a temperature one of its distribution, in fewer forwards: masks of the
   * model or an adapter draft it, or it is looked up in what is written already, and the model verifies the drafts; see
   * speculative.ts. With `threshold` below 1 what is sure enough is not verified.
   */
  generateSpeculative(prompt: readonly number[], options: GenerateOptions): Generation
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

const EVERYONE: Sharing = { group: '', step: 1 }

/** Runs a generation to its end. */
export async function complete(generation: Generation, onStep?: (step: DecodeStep) => void): Promise<GenerationResult> {
  for (;;) {
    const { done, value } = await generation.next()
    if (done) return value
    onStep?.(value)
  }
}

/**
 * Loads a model for decoding. The weights are copied into the session, so the caller may drop or change them; those that lie on the
 * executor are used as they are there (`DecodeWeights`).
 * One engine serves any number of generations, also at the same time: their state is their own.
 */
export async function createEngine(
  executor: Executor,
  model: Model,
  weights: DecodeWeights,
  options: EngineOptions,
): Promise<Engine> {
  const { maskTokenId, eosTokenIds, specialTokenIds = [] } = options
  const { shift = false, keepPrefixes = 0, softStates = false, causalContext = false, adapter, bytesOf } = options
  const { noisedGroups = false } = options
  const { dimensions } = model
  const { maxPositions } = dimensions
  const unwritten = specialTokenIds.filter((id) => !eosTokenIds.includes(id))
  const noText = [...unwritten, ...eosTokenIds]
  if (maskTokenId !== undefined) checkIds([maskTokenId], dimensions, 'the mask token')
  const forbidden = maskTokenId === undefined ? [] : [maskTokenId]
  const forward = await createForward(executor, model, weights, forbidden, {
    keep: keepPrefixes,
    softMask: softStates ? maskTokenId : undefined,
    adapter,
  })
  const blockModel = { dimensions, maskTokenId, shift, softStates, noisedGroups }

  /** One past the last position asked for; less where the model's positions end. */
  const endOf = (prompt: readonly number[], { maxNewTokens = settingDefault('maxNewTokens') }: DecodingSettings) =>
    Math.min(prompt.length + maxNewTokens, maxPositions)

  /** The tokens from `from` on are the new ones. */
  function blocks(
    document: Document,
    settings: BlockSettings,
    { from, sharing = EVERYONE }: { from: number; sharing?: Sharing | undefined },
  ): Generation {
    const { ids, blocks: blockSize, holes, editableFrom } = document
    // What may be edited is computed again, whatever an earlier text has left.
    const open = () =>
      typeof blockSize === 'number' && !settings.reuse && !holes
        ? forward.openCache({ tokens: ids.slice(0, editableFrom), blockSize, sharing })
        : forward.createCache()
    const account = { promptTokens: ids.length, from, eosTokenIds }
    return generation(account, open, (cache) => decodeBlocks(forward, cache, document, settings))
  }

  const rates = createDraftRates()
  /** Decodes from left to right; the cache may be that of a text that begins alike. */
  function leftToRight(
    prompt: readonly number[],
    { sharing = EVERYONE }: Pick<GenerateOptions, 'sharing'>,
    decode: Parameters<typeof generation>[2],
  ): Generation {
    const account = { promptTokens: prompt.length, from: prompt.length, eosTokenIds }
    return generation(account, () => forward.openCache({ tokens: prompt, blockSize: 1, sharing }), decode)
  }

  return {
    generate(prompt, options) {
      checkPrompt(prompt, dimensions)
      const settings = blockSettings(blockModel, options)
      if (shift && prompt.length === 0)
        throw new UserError(
          'this model predicts each token from the one before it: give a prompt of at least one token',
        )
      const end = endOf(prompt, options)
      const tracker = options.constraint?.begin({ maxTokens: end - prompt.length })
      const document = { ids: prompt, end, most: maxPositions, blocks: options.blockSize, eosTokenIds, tracker }
      return blocks(document, settings, { ...options, from: prompt.length })
    },
    generateAutoregressive(prompt, options) {
      checkAutoregressivePrompt(prompt, dimensions)
      checkOptions(options, dimensions)
      const { logitScale, constraint, signal } = options
      const end = endOf(prompt, options)
      const predictor = createPredictor(options, { forbidden, logits: constraint !== undefined })
      const tracker = constraint?.begin({ maxTokens: end - prompt.length })
      const settings = { predictor, tracker, logitScale, signal }
      return leftToRight(prompt, options, (cache) =>
        decodeAutoregressive(forward, cache, { prompt, end, eosTokenIds }, settings),
      )
    },
    generateSpeculative(prompt, options) {
      const { lookup = settingDefault('lookup'), lookupTokens = settingDefault('lookupTokens') } = options
      if (options.masks && !adapter && !causalContext)
        throw new UserError(
          'masks draft only with a model of the objective hybrid, or an adapter (unmask accelerate makes one)',
        )
      checkAutoregressivePrompt(prompt, dimensions)
      checkOptions(options, dimensions)
      const { masks = 0, threshold = 1, rowCost = settingDefault('rowCost'), constraint, logitScale, signal } = options
      const end = endOf(prompt, options)
      const predictor = createPredictor(options, { forbidden, logits: constraint !== undefined })
      const tracker = constraint?.begin({ maxTokens: end - prompt.length })
      const drafts = {
        ...{ masks, rowCost, threshold, maskTokenId: maskTokenId ?? 0 },
        lookup: lookup > 0 ? { window: lookup, most: lookupTokens, bytesOf } : undefined,
      }
      const settings = { ...drafts, rates, predictor, tracker, sampling: options, logitScale, signal }
      return leftToRight(prompt, options, (cache) =>
        decodeSpeculative(forward, cache, { prompt, end, eosTokenIds }, settings),
      )
    },
    fill(ids, options) {
      const { blockSize, rightContext = blockSize, ends = 'nowhere' } = options
      const from = ends === 'nowhere' ? Number.POSITIVE_INFINITY : ends === 'anywhere' ? 0 : ends.from
      const settings = blockSettings(blockModel, options, (position) => (position >= from ? unwritten : noText))
      if (!Number.isSafeInteger(rightContext) || rightContext < 0)
        throw new SettingError('rightContext', `expected a whole number of at least 0, not ${rightContext}`)
      checkText(ids, dimensions)
      const holes = new Set(ids.flatMap((id, i) => (id === maskTokenId ? [i] : [])))
      if (holes.size === 0) throw new UserError('there is nothing to fill: the text has no mask token')
      if (shift && holes.has(0))
        throw new UserError('this model predicts each token from the one before it: the first token cannot be a hole')
      const starts = blocksAroundHoles(holes, ids.length, blockSize, rightContext)
      const document = { ids, holes, end: ids.length, most: ids.length, blocks: starts, eosTokenIds: [] }
      return blocks(document, settings, { ...options, from: 0 })
    },
    rewrite(ids, { from = 0, ...options }) {
      checkText(ids, dimensions)
      const settings = blockSettings(blockModel, { ...options, strategy: 'edit' }, () => noText)
      const first = Math.max(from, shift ? 1 : 0)
      if (!Number.isSafeInteger(from) || from < 0 || first >= ids.length)
        throw new UserError(`there is nothing to rewrite from position ${from} of ${ids.length} on`)
      const document = { ids, editableFrom: first, end: ids.length, most: ids.length, eosTokenIds: [] }
      return blocks({ ...document, blocks: options.blockSize }, settings, { ...options, from: 0 })
    },
    async score(ids, options) {
      checkText(ids, dimensions)
      checkCount('blockSize', options.blockSize)
      if (options.samples !== undefined) checkCount('samples', options.samples)
      if (maskTokenId === undefined) throw new UserError('the lower bound needs a mask token; score autoregressively')
      return scoreBlocks(forward, ids, { ...options, maskTokenId, shift, maxPositions })
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
