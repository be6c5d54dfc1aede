// Runs the inference program: new tokens of sequences against their caches. Requests that wait at the same time and are alike
// share a forward. Knows what a forward is, not when to do one.

import { UserError } from '../core/types.ts'
import type { Model } from '../models/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { type Cache, createCaches, type Prefix } from './cache.ts'
import type { CacheView } from './cache-pool.ts'
import { createDraftSwitch } from './draft-switch.ts'
import { type BatchEntry, costOf, layOut, muchLess, nextBatch, resultsOf } from './forward-batch.ts'
import { type DecodeExtras, type DecodeWeights, loadDecodeProgram } from './forward-program.ts'
import type { Predictions } from './types.ts'

/** Where new positions stand and whom they see, in place of blocks of one size. Each has an entry for every new position. */
export interface Layout {
  positions: readonly number[]
  /** New position i sees new position j iff `blocks[j] <= blocks[i] < ends[j]`, and the whole cache. */
  blocks: readonly number[]
  /** Default: all endless. */
  ends?: readonly number[]
}

export interface ForwardRequest {
  /** The new tokens. */
  ids: readonly number[]
  /**
   * A number: the tokens follow the cache, whose length is the position of the first, and see each other block-causally, by
   * floor(position / block size); 1 is a causal mask.
   */
  blockSize: number | Layout
  /** Indices into `ids` that are predicted. */
  rows: readonly number[]
  /** How many of `ids`, from the first, are stored in the cache, or the indices of those that are, ascending. */
  store: number | readonly number[]
  /** With an adapter: indices into `ids` where it acts. Their tokens do not matter. Default none. */
  masks?: readonly number[]
  /** With soft states: index into `ids` -> the share of the mask in the position's embedding, 0 to 1. Default none. */
  maskShares?: ReadonlyMap<number, number>
  /** Multiplies the logits before the softmax. Default 1. */
  logitScale?: number
  /** Also returns the logits: a copy of vocabulary size per row. Default false. */
  logits?: boolean
  signal?: AbortSignal
}

export interface ForwardResult extends Predictions {
  /** [rows, vocabulary], unscaled, where asked for. */
  logits: Float32Array | undefined
}

export interface Forward {
  createCache(): Cache
  /** Whether a text should draft, if what it drafts does not change it: one text alone does, others where it is faster. */
  drafting(): boolean
  /** Texts that are being written: as many may share a forward. */
  texts(): number
  /** A forward has brought a text so many tokens. */
  brought(tokens: number): void
  /** A cache that holds as many whole blocks of the text's beginning as an earlier text has left. */
  openCache(prefix: Prefix): Promise<Cache>
  /**
   * Of one cache, one request at a time. Throws UserError where the model's values are not numbers, and the signal's reason
   * when aborted.
   */
  run(cache: Cache, request: ForwardRequest): Promise<ForwardResult>
  dispose(): Promise<void>
}

interface Waiting extends BatchEntry {
  resolve(result: ForwardResult): void
  reject(error: unknown): void
}

const NOT_NUMBERS = 'the model predicts values that are not numbers: its weights are broken or diverged in training'

/** Turns of the microtask queue in which those whose forward has ended may ask for the next, to share it. */
const TURNS = 256

/**
 * The fewest positions of a forward of one sequence, and the fewest predictions of a forward, if any. ONNX Runtime multiplies
 * a single row by other means than several, and their sums differ in the last bits, which the rounding of activations for
 * quantised weights make larger. From two on, what a position gives does not depend on how many there are: as the next
 * token, as a draft that is verified and in a block it is the same, bit for bit.
 */
const LEAST_ROWS = 2

let instances = 0

export interface ForwardOptions extends DecodeExtras {
  /** Free caches that keep their tokens for texts that begin alike; see `createCaches`. Default 0. */
  keep?: number
}

/**
 * Loads the inference program. The tokens `forbidden` are never predicted. Weights are copied; of those that lie on the executor
 * every forward uses what is there.
 */
export async function createForward(
  executor: Executor,
  model: Model,
  weights: DecodeWeights,
  forbidden: readonly number[],
  { keep = 0, ...extras }: ForwardOptions = {},
): Promise<Forward> {
  const { dimensions } = model
  const { vocabSize } = dimensions
  const name = `decode${instances++}`
  // Experts get as many rows as chose them, whatever the forward has.
  const least = model.mixtures.length > 0 ? 1 : LEAST_ROWS
  const session = await loadDecodeProgram(executor, model, weights, extras)
  const resident = 'resident' in weights ? weights.resident : {}
  const tokenBias = new Float32Array(vocabSize)
  for (const token of forbidden) tokenBias[token] = Number.NEGATIVE_INFINITY
  const bias = { resident: `${name}.token_bias`, shape: [vocabSize] }
  await executor.allocate(bias.resident, 'float32', tokenBias)
  const caches = createCaches(executor, dimensions, name, keep)
  const queue: Waiting[] = []
  let working = false
  /** Requests that cost less than `below` go first for `left` ms: as long as they had to wait for a costly forward. */
  let owed = { below: 0, left: 0 }
  const drafts = createDraftSwitch()
  let bound: CacheView | undefined
  let last: Promise<unknown> = Promise.resolve()

  /** One after the other: what moves the buffers. */
  function exclusive<T>(use: () => Promise<T>): Promise<T> {
    const result = last.then(use)
    last = result.catch(() => undefined)
    return result
  }

  async function work(): Promise<void> {
    working = true
    while (queue.length > 0) {
      for (let turn = 0; turn < TURNS && queue.length < caches.count; turn++) await null
      const batch = nextBatch(queue, owed.left > 0 ? owed.below : 0)
      if (batch.length === 0) continue
      for (const waiting of batch) queue.splice(queue.indexOf(waiting), 1)
      const since = performance.now()
      const costs = Math.min(...batch.map(costOf))
      try {
        await exclusive(() => runBatch(batch))
        const took = performance.now() - since
        if (costs < owed.below) owed.left -= took
        else owed = { below: muchLess(costs), left: took }
      } catch (error) {
        bound = undefined
        for (const { reject } of batch) reject(error)
      }
    }
    working = false
  }

  /** One forward over the slots from the first to the last of the batch, padded to the longest request. */
  async function runBatch(batch: readonly Waiting[]): Promise<void> {
    const { pool, slot: first } = batch[0].cache
    const rows = batch[batch.length - 1].cache.slot - first + 1
    const forward = layOut(batch, { rows, least, lengths: pool.lengths(first, rows), extras })
    await pool.reserve(first, rows, forward.length)
    const view = pool.view(first, rows, forward.length)
    // The worker does what it is sent in order: nothing waits for the binding alone.
    const binding = view === bound ? undefined : session.bind({ ...view.feeds, ...resident }, view.fetches)
    bound = view
    const run = session.run({ ...forward.feeds, token_bias: bias }, forward.fetches)
    const [outputs] = await Promise.all([run, binding])
    for (const [i, result] of resultsOf(outputs, batch, vocabSize).entries()) {
      const { cache, request, resolve, reject } = batch[i]
      const { store, ids } = request
      const stored = typeof store === 'number' ? Array.from({ length: store }, (_, j) => j) : store
      await caches.store(
        cache,
        stored,
        stored.map((index) => ids[index]),
      )
      if (result.confidence.some(Number.isNaN)) reject(new UserError(NOT_NUMBERS))
      else resolve(result)
    }
  }

  function enqueue(cache: Cache, request: ForwardRequest): Promise<ForwardResult> {
    const { signal } = request
    if (signal?.aborted) return Promise.reject(signal.reason)
    return new Promise<ForwardResult>((resolve, reject) => {
      const abort = () => {
        // A forward that runs already ends for the others.
        const index = queue.indexOf(waiting)
        if (index !== -1) queue.splice(index, 1)
        waiting.reject(signal?.reason)
      }
      const settle = () => signal?.removeEventListener('abort', abort)
      const waiting: Waiting = {
        cache,
        request,
        resolve(result) {
          settle()
          resolve(result)
        },
        reject(error) {
          settle()
          reject(error)
        },
      }
      signal?.addEventListener('abort', abort, { once: true })
      queue.push(waiting)
      if (!working) void work()
    })
  }

  /** A cache that is given back in its turn: a forward that runs, or the growing before it, still counts on its buffers. */
  function guard(cache: Cache): Cache {
    const { free } = cache
    cache.free = () => exclusive(free)
    return cache
  }

  return {
    createCache: () => guard(caches.open()),
    texts: () => caches.count,
    drafting: () => caches.count < 2 || drafts.drafting(),
    brought(tokens) {
      if (caches.count > 1) drafts.observe(tokens, caches.count)
    },
    openCache: async (prefix) => guard(await exclusive(() => caches.openWith(prefix))),
    run(cache, request) {
      if (request.signal?.aborted) return Promise.reject(request.signal.reason)
      const positions = request.ids.length
      if (cache.length + positions <= cache.pool.limit) return enqueue(cache, request)
      return exclusive(() => cache.makeRoom(positions)).then(() => enqueue(cache, request))
    },
    async dispose() {
      await session.release()
      await caches.release()
      await executor.free(bias.resident)
    },
  }
}
