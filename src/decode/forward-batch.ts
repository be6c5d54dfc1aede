// One forward of several requests: which of those that wait share it, the inputs of the program that it takes, and each
// request's part of what comes back. Knows nothing about executors, queues or when to forward.
import type { TensorData } from '../core/types.ts'
import type { Source } from '../runtime/executor.ts'
import type { Cache } from './cache.ts'
import type { ForwardRequest, ForwardResult } from './forward.ts'
import type { DecodeExtras } from './forward-program.ts'

/** A request and the cache it goes on from. */
export interface BatchEntry {
  cache: Cache
  request: ForwardRequest
}

/**
 * The most sequences that share a forward, and the most positions with their padding: so many keep the processor busy, and with
 * more all of them wait longer.
 */
const MOST_ROWS = 64
const MOST_POSITIONS = 512
/** A request of more positions has a forward of its own: it gains nothing from others, and its attention stays as long as it is. */
const LONG = 64
/** Products with weights take about as long for a position as attention over so many cached ones. */
const PRODUCTS = 256
/** A request of so many times the cost is much more. */
const MUCH = 3

/** New positions without an end are seen by all that come later. */
const ENDLESS = 2n ** 62n

export interface BatchShape {
  /** Slots from the first to the last of the batch; one between them may be without a request. */
  rows: number
  /** The fewest positions of a forward of one row, and the fewest predictions of a forward, if any. */
  least: number
  /** Tokens that each slot's cache holds. */
  lengths: readonly number[]
  extras: DecodeExtras
}

export interface BatchForward {
  /** New positions of a row, padding included. */
  length: number
  feeds: Record<string, Source>
  fetches: Record<string, null>
}

/** The inputs of the inference program, without its caches and token bias. `batch` ascends by slot. Shorter requests are padded. */
export function layOut(batch: readonly BatchEntry[], { rows, least, lengths, extras }: BatchShape): BatchForward {
  const longest = Math.max(...batch.map(({ request: { ids } }) => ids.length))
  const length = rows === 1 ? Math.max(longest, least) : longest
  const shape = [rows, length]
  const int64s = (value: bigint) => new BigInt64Array(rows * length).fill(value)
  const [ids, positions] = [int64s(0n), int64s(0n)]
  // Padding sees only itself, and nothing else sees it.
  const [blocks, ends] = [int64s(-1n), int64s(0n)]
  const gate = new Float32Array(rows * length)
  const maskShares = new Float32Array(rows * length)
  const rowIndex: number[] = []
  const scales: number[] = []
  for (const { cache, request } of batch) {
    const start = (cache.slot - batch[0].cache.slot) * length
    for (const [j, id] of request.ids.entries()) {
      const { position, block, end } = placeOf(request.blockSize, cache.length, j)
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
  const feeds: Record<string, Source> = {
    input_ids: { dtype: 'int64', shape, data: ids },
    position_ids: { dtype: 'int64', shape, data: positions },
    block_ids: { dtype: 'int64', shape, data: blocks },
    block_ends: { dtype: 'int64', shape, data: ends },
    cache_length: { dtype: 'int64', shape: [rows], data: BigInt64Array.from(lengths, BigInt) },
    row_index: { dtype: 'int64', shape: [rowIndex.length], data: BigInt64Array.from(rowIndex, BigInt) },
    logit_scale: { dtype: 'float32', shape: [scales.length], data: Float32Array.from(scales) },
  }
  if (extras.adapter) feeds.gate = { dtype: 'float32', shape: [...shape, 1], data: gate }
  if (extras.softMask !== undefined) feeds.mask_share = { dtype: 'float32', shape: [...shape, 1], data: maskShares }
  const fetches: Record<string, null> = { token: null, confidence: null }
  if (batch.some(({ request }) => request.logits)) fetches.logits = null
  return { length, feeds, fetches }
}

/** Position, block and end of the new token `index` behind `cached` tokens; no end: seen by all that come later. */
function placeOf(layout: ForwardRequest['blockSize'], cached: number, index: number) {
  if (typeof layout !== 'number')
    return { position: layout.positions[index], block: layout.blocks[index], end: layout.ends?.[index] }
  const position = cached + index
  return { position, block: Math.floor(position / layout), end: undefined }
}

/** Each request's predictions, in the order of `batch`. */
export function resultsOf(
  outputs: Record<string, TensorData>,
  batch: readonly BatchEntry[],
  vocabSize: number,
): (ForwardResult & { confidence: number[] })[] {
  const tokens = outputs.token.data as BigInt64Array
  const confidence = outputs.confidence.data as Float32Array
  let end = 0
  return batch.map(({ request }) => {
    const start = end
    end += request.rows.length
    return {
      tokens: Array.from(tokens.subarray(start, end), Number),
      // Rounding may put a probability just above 1.
      confidence: Array.from(confidence.subarray(start, end), (p) => Math.min(p, 1)),
      logits: request.logits
        ? (outputs.logits.data as Float32Array).slice(start * vocabSize, end * vocabSize)
        : undefined,
    }
  })
}

/** About how long a request takes: its new positions, each times the products with weights and the attention over the cache. */
export const costOf = ({ cache, request }: BatchEntry): number => request.ids.length * (PRODUCTS + cache.length)

/** The requests that cost less than this take much less time than one that costs `cost`. */
export const muchLess = (cost: number): number => cost / MUCH

/**
 * The request that waits longest, or of those that cost less than `below` where there is one, with those like it, ascending by
 * slot. Rows of a forward are neighbours in the buffers, so a slot between them takes part without a request: at most as many
 * as have one. Alike are requests whose caches lie in the same buffers, of at most twice the length, as a block with the one
 * before it is, which bounds what padding costs.
 */
export function nextBatch<T extends BatchEntry>(queue: readonly T[], below = 0): T[] {
  const oldest = queue.find((waiting) => costOf(waiting) < below) ?? queue[0]
  if (!oldest) return []
  const { slot } = oldest.cache
  const distance = (waiting: T) => Math.abs(waiting.cache.slot - slot)
  const alike = queue.filter((waiting) => waiting !== oldest && isAlike(oldest, waiting))
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

function isAlike(a: BatchEntry, b: BatchEntry): boolean {
  const [short, long] = [a.request.ids.length, b.request.ids.length].sort((x, y) => x - y)
  return a.cache.pool === b.cache.pool && long <= Math.min(2 * short, LONG)
}
