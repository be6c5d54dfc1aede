// Runs the inference program: new tokens of sequences against their caches. Requests that wait at the same time and are alike
// share a forward. Knows what a forward is, not when to do one.

import { type InferenceParameter, UserError } from '../core/types.ts'
import type { Model } from '../models/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { type Cache, type CacheView, createCaches, type Prefix } from './cache.ts'
import { createDraftSwitch } from './draft-switch.ts'
import { type DecodeExtras, loadDecodeProgram } from './forward-program.ts'
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

interface Waiting {
  cache: Cache
  request: ForwardRequest
  resolve(result: ForwardResult): void
  reject(error: unknown): void
}

/** The most sequences that share a forward, and the most positions with their padding. */
const MOST_ROWS = 64
const MOST_POSITIONS = 2048

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

/** New positions without an end are seen by all that come later. */
const ENDLESS = 2n ** 62n

export interface ForwardOptions extends DecodeExtras {
  /** Free caches that keep their tokens for texts that begin alike; see `createCaches`. Default 0. */
  keep?: number
}

/** Loads the inference program. The tokens `forbidden` are never predicted. The weights are copied. */
export async function createForward(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
  forbidden: readonly number[],
  { keep = 0, ...extras }: ForwardOptions = {},
): Promise<Forward> {
  const { dimensions } = model
  const { vocabSize } = dimensions
  const name = `decode${instances++}`
  const { adapter, softMask } = extras
  // Experts get as many rows as chose them, whatever the forward has.
  const least = model.mixtures.length > 0 ? 1 : LEAST_ROWS
  const session = await loadDecodeProgram(executor, model, weights, extras)
  const tokenBias = new Float32Array(vocabSize)
  for (const token of forbidden) tokenBias[token] = Number.NEGATIVE_INFINITY
  const bias = { resident: `${name}.token_bias`, shape: [vocabSize] }
  await executor.allocate(bias.resident, 'float32', tokenBias)
  const caches = createCaches(executor, dimensions, name, keep)
  const queue: Waiting[] = []
  let working = false
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
      const batch = nextBatch(queue)
      if (batch.length === 0) continue
      for (const waiting of batch) queue.splice(queue.indexOf(waiting), 1)
      try {
        await exclusive(() => runBatch(batch))
      } catch (error) {
        bound = undefined
        for (const { reject } of batch) reject(error)
      }
    }
    working = false
  }

  /** One forward over the slots from the first to the last of the batch, padded to the longest request. */
  async function runBatch(batch: readonly Waiting[]): Promise<void> {
    const first = batch[0].cache.slot
    const rows = batch[batch.length - 1].cache.slot - first + 1
    const longest = Math.max(...batch.map(({ request: { ids } }) => ids.length))
    const length = rows === 1 ? Math.max(longest, least) : longest
    const shape = [rows, length]
    const int64s = (value: bigint) => new BigInt64Array(rows * length).fill(value)
    const [ids, positions] = [int64s(0n), int64s(0n)]
    // Padding sees only itself, and nothing else sees it.
    const [blocks, ends] = [int64s(-1n), int64s(0n)]
    const gate = new Float32Array(adapter ? rows * length : 0)
    const maskShares = new Float32Array(softMask === undefined ? 0 : rows * length)
    const lengths = BigInt64Array.from(caches.lengths(first, rows), BigInt)
    const rowIndex: number[] = []
    const scales: number[] = []
    for (const { cache, request } of batch) {
      const row = cache.slot - first
      const start = row * length
      const { blockSize } = request
      for (const [j, id] of request.ids.entries()) {
        const position = typeof blockSize === 'number' ? cache.length + j : blockSize.positions[j]
        const block = typeof blockSize === 'number' ? Math.floor(position / blockSize) : blockSize.blocks[j]
        const end = typeof blockSize === 'number' ? undefined : blockSize.ends?.[j]
        ids[start + j] = BigInt(id)
        positions[start + j] = BigInt(position)
        blocks[start + j] = BigInt(block)
        ends[start + j] = end === undefined ? ENDLESS : BigInt(end)
      }
      for (const index of request.masks ?? []) gate[start + index] = 1
      for (const [index, share] of request.maskShares ?? []) maskShares[start + index] = share
      for (const index of request.rows) {
        rowIndex.push(start + index)
        scales.push(request.logitScale ?? 1)
      }
    }
    if (rowIndex.length > 0)
      while (rowIndex.length < least) {
        rowIndex.push(rowIndex[0])
        scales.push(1)
      }
    await caches.reserve(first, rows, length)
    const view = caches.view(first, rows, length)
    // The worker does what it is sent in order: nothing waits for the binding alone.
    const binding = view === bound ? undefined : session.bind(view.feeds, view.fetches)
    bound = view
    const logits = batch.some(({ request }) => request.logits)
    const run = session.run(
      {
        input_ids: { dtype: 'int64', shape, data: ids },
        position_ids: { dtype: 'int64', shape, data: positions },
        block_ids: { dtype: 'int64', shape, data: blocks },
        block_ends: { dtype: 'int64', shape, data: ends },
        cache_length: { dtype: 'int64', shape: [rows], data: lengths },
        row_index: { dtype: 'int64', shape: [rowIndex.length], data: BigInt64Array.from(rowIndex, BigInt) },
        logit_scale: { dtype: 'float32', shape: [scales.length], data: Float32Array.from(scales) },
        token_bias: bias,
        ...(adapter ? { gate: { dtype: 'float32' as const, shape: [...shape, 1], data: gate } } : {}),
        ...(softMask === undefined
          ? {}
          : { mask_share: { dtype: 'float32' as const, shape: [...shape, 1], data: maskShares } }),
      },
      { token: null, confidence: null, ...(logits ? { logits: null } : {}) },
    )
    const [outputs] = await Promise.all([run, binding])
    const tokens = outputs.token.data as BigInt64Array
    const confidence = outputs.confidence.data as Float32Array
    let row = 0
    for (const { cache, request, resolve, reject } of batch) {
      const end = row + request.rows.length
      const result = {
        tokens: Array.from(tokens.subarray(row, end), Number),
        // Rounding may put a probability just above 1.
        confidence: Array.from(confidence.subarray(row, end), (p) => Math.min(p, 1)),
        logits: request.logits
          ? (outputs.logits.data as Float32Array).slice(row * vocabSize, end * vocabSize)
          : undefined,
      }
      row = end
      const indices =
        typeof request.store === 'number' ? Array.from({ length: request.store }, (_, j) => j) : request.store
      await caches.store(
        cache,
        indices,
        indices.map((index) => request.ids[index]),
      )
      if (result.confidence.some(Number.isNaN))
        reject(
          new UserError(
            'the model predicts values that are not numbers: its weights are broken or diverged in training',
          ),
        )
      else resolve(result)
    }
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
    },
    async dispose() {
      await session.release()
      await caches.release()
      await executor.free(bias.resident)
    },
  }
}

/**
 * The request that waits longest with those like it, ascending by slot. Rows of a forward are neighbours in the buffers, so
 * a slot between them takes part without a request: at most as many as have one. Alike are requests of at most twice the
 * length, as a block with the one before it is, which bounds what padding costs.
 */
function nextBatch(queue: readonly Waiting[]): Waiting[] {
  const [oldest] = queue
  if (!oldest) return []
  const { slot } = oldest.cache
  const distance = (waiting: Waiting) => Math.abs(waiting.cache.slot - slot)
  const alike = queue.slice(1).filter(({ request }) => isAlike(oldest.request, request))
  const batch = [oldest]
  let [low, high, longest] = [slot, slot, oldest.request.ids.length]
  for (const waiting of alike.sort((a, b) => distance(a) - distance(b))) {
    const from = Math.min(low, waiting.cache.slot)
    const to = Math.max(high, waiting.cache.slot)
    const length = Math.max(longest, waiting.request.ids.length)
    const rows = to - from + 1
    if (rows > MOST_ROWS || rows * length > MOST_POSITIONS || rows > 2 * (batch.length + 1)) continue
    batch.push(waiting)
    ;[low, high, longest] = [from, to, length]
  }
  return batch.sort((a, b) => a.cache.slot - b.cache.slot)
}

function isAlike(a: ForwardRequest, b: ForwardRequest): boolean {
  const [short, long] = [a.ids.length, b.ids.length].sort((x, y) => x - y)
  return long <= 2 * short
}
