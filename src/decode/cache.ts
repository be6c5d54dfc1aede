// The KV caches of the sequences that are decoded at a time: slots of shared buffers, so that one forward runs over several.
// The buffers grow in steps. A slot that is given back may keep its tokens for a while, so that a prompt which begins like an
// earlier one need not be computed again. Only one caller at a time may open with a prompt, reserve or run.
import type { Dimensions } from '../models/types.ts'
import type { Copy, Executor, Resident } from '../runtime/executor.ts'

/** The cache of one sequence. */
export interface Cache {
  readonly slot: number
  /** Positions stored so far. */
  readonly length: number
  /** Says that these tokens are stored behind the others. */
  append(tokens: readonly number[]): void
  /** Forgets what lies behind the first `length` positions. */
  truncate(length: number): void
  /** Gives the slot back. */
  free(): Promise<void>
}

/** A text whose keys and values another may share: as far as the tokens are equal and seen in the same blocks. */
export interface Prefix {
  tokens: readonly number[]
  /** Keys and values of a token depend on its block, so that only whole blocks are shared. */
  blockSize: number
}

export interface Caches {
  /** An empty cache, in a free slot. */
  open(): Cache
  /** A cache that holds what is known of the beginning of a text: whole blocks, not all of its tokens. */
  openWith(prefix: Prefix): Promise<Cache>
  /** Caches that are open. */
  readonly count: number
  /** Makes room for `length` positions in every slot that is open. */
  reserve(length: number): Promise<void>
  /** The buffers of `slots` slots from `first` as inputs of the decode program; feeding them moves nothing. */
  feeds(first: number, slots: number): Record<string, Resident>
  /** Stores new positions that row `row` of the forward has, behind what the cache holds. Room must be reserved. */
  copies(cache: Cache, row: number, indices: readonly number[]): Copy[]
}

/** Positions that a cache grows by: attention runs over the whole buffer, so a larger step costs time. */
const STEP = 256

interface Slot {
  open: boolean
  tokens: number[]
  /** Undefined where nobody may share the tokens. */
  blockSize: number | undefined
  /** Ordinal of the last use, for the choice of what is forgotten first. */
  used: number
}

/**
 * `name` must be unique in the executor. `keep` is the number of free slots that may keep their tokens; with 0 the buffers
 * are gone when the last cache is.
 */
export function createCaches(executor: Executor, dimensions: Dimensions, name: string, keep = 0): Caches {
  const { layers, kvHeads, headDim, maxPositions } = dimensions
  const kinds = ['key', 'value'].flatMap((kind) => Array.from({ length: layers }, (_, layer) => `${kind}.${layer}`))
  const resident = (kind: string) => `${name}.${kind}`
  const taken = new Map<number, Slot>()
  let capacity = 0
  let slots = 0
  let clock = 0
  const shape = () => [slots, kvHeads, capacity, headDim]
  const matrix = () => capacity * headDim
  const opened = () => [...taken.values()].filter(({ open }) => open).length

  async function resize(toSlots: number, toCapacity: number): Promise<void> {
    const size = toSlots * kvHeads * toCapacity * headDim
    // One buffer at a time, so that the old and the new cache are never both in memory.
    for (const kind of kinds) {
      if (slots === 0) await executor.allocate(resident(kind), 'float32', size)
      else {
        const old = (await executor.read(resident(kind))) as Float32Array
        const grown = new Float32Array(size)
        for (const [slot, { tokens }] of taken)
          for (let head = slot * kvHeads; slot < slots && head < (slot + 1) * kvHeads; head++) {
            const filled = old.subarray(head * matrix(), head * matrix() + tokens.length * headDim)
            grown.set(filled, head * toCapacity * headDim)
          }
        await executor.allocate(resident(kind), 'float32', grown)
      }
    }
    slots = toSlots
    capacity = toCapacity
  }

  async function reserve(length: number): Promise<void> {
    const needed = Math.max(...taken.keys()) + 1
    const room = Math.min(Math.ceil(Math.max(length, 1) / STEP) * STEP, maxPositions)
    if (needed > slots || room > capacity)
      await resize(needed > slots ? Math.max(needed, slots * 2) : slots, Math.max(room, capacity))
  }

  function firstFree(): number {
    let slot = 0
    while (taken.has(slot)) slot++
    return slot
  }

  function take(slot: number, tokens: number[], blockSize: number | undefined): Cache {
    const state: Slot = { open: true, tokens, blockSize, used: clock++ }
    taken.set(slot, state)
    return {
      slot,
      get length() {
        return state.tokens.length
      },
      append(more) {
        for (const token of more) state.tokens.push(token)
      },
      truncate(length) {
        state.tokens.length = Math.min(state.tokens.length, length)
      },
      async free() {
        if (!state.open) return
        state.open = false
        state.used = clock++
        if (keep === 0 || state.blockSize === undefined || state.tokens.length === 0) taken.delete(slot)
        const kept = [...taken].filter(([, { open }]) => !open).sort(([, a], [, b]) => a.used - b.used)
        for (const [old] of kept.slice(0, Math.max(0, kept.length - keep))) taken.delete(old)
        if (taken.size > 0) return
        capacity = 0
        slots = 0
        await Promise.all(kinds.map((kind) => executor.free(resident(kind))))
      },
    }
  }

  return {
    open: () => take(firstFree(), [], undefined),
    async openWith({ tokens, blockSize }) {
      let best: { slot: number; length: number } | undefined
      for (const [slot, state] of taken) {
        if (state.blockSize !== blockSize) continue
        const length = commonBlocks(state.tokens, tokens, blockSize)
        if (length > (best?.length ?? 0)) best = { slot, length }
      }
      if (!best) return take(firstFree(), [], blockSize)
      const source = taken.get(best.slot) as Slot
      // What the source holds beyond the shared part may serve another: it stays where half or more would be lost.
      if (!source.open && 2 * best.length > source.tokens.length) {
        source.tokens.length = best.length
        return take(best.slot, source.tokens, blockSize)
      }
      const cache = take(firstFree(), [], blockSize)
      await reserve(best.length)
      for (const kind of kinds)
        for (let head = 0; head < kvHeads; head++) {
          const from = (best.slot * kvHeads + head) * matrix()
          const to = (cache.slot * kvHeads + head) * matrix()
          await executor.move(resident(kind), from, to, best.length * headDim)
        }
      cache.append(tokens.slice(0, best.length))
      return cache
    },
    get count() {
      return opened()
    },
    reserve,
    feeds: (first, count) =>
      Object.fromEntries(
        kinds.map((kind) => [
          `past_${kind}`,
          { resident: resident(kind), offset: first * kvHeads * matrix(), shape: [count, ...shape().slice(1)] },
        ]),
      ),
    copies: ({ slot, length }, row, indices) =>
      ranges(indices).flatMap(({ start, count, before }) =>
        kinds.map((kind) => ({
          output: `present_${kind}`,
          resident: resident(kind),
          shape: shape(),
          rows: { from: row, to: slot },
          axis: 2,
          start,
          length: count,
          offset: length + before,
        })),
      ),
  }
}

/** Positions that two texts share in whole blocks, less than all of `wanted`: its last token must still predict. */
function commonBlocks(known: readonly number[], wanted: readonly number[], blockSize: number): number {
  const most = Math.min(known.length, wanted.length - 1)
  let length = 0
  while (length < most && known[length] === wanted[length]) length++
  return length - (length % blockSize)
}

/** Runs of consecutive indices, each with how many come before it. */
function ranges(indices: readonly number[]): { start: number; count: number; before: number }[] {
  const runs: { start: number; count: number; before: number }[] = []
  for (const [before, index] of indices.entries()) {
    const last = runs[runs.length - 1]
    if (last && last.start + last.count === index) last.count++
    else runs.push({ start: index, count: 1, before })
  }
  return runs
}
