// The KV caches of the sequences that are decoded at a time: slots of shared buffers, so that one forward runs over several.
// The buffers grow in steps. A slot that is given back may keep its tokens for a while, so that a prompt which begins like an
// earlier one need not be computed again. Only one caller at a time may open with a prompt, reserve or run.
import type { Dimensions } from '../models/types.ts'
import type { Executor, Resident } from '../runtime/executor.ts'

/** The cache of one sequence. */
export interface Cache {
  readonly slot: number
  /** Positions stored so far. */
  readonly length: number
  /** Says that these tokens lie behind the others. */
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
  sharing: Sharing
}

/** How fast a prompt is computed reveals what it shares with another. */
export interface Sharing {
  /** Only texts of the same group share. */
  group: string
  /** Tokens are shared in multiples of this many, so that no text can be guessed token by token. */
  step: number
}

export interface Caches {
  /** An empty cache, in a free slot. */
  open(): Cache
  /** A cache that holds what is known of the beginning of a text: whole blocks, not all of its tokens. */
  openWith(prefix: Prefix): Promise<Cache>
  /** Caches that are open. */
  readonly count: number
  /** Positions that each of `count` slots from `first` holds. */
  lengths(first: number, count: number): number[]
  /** Makes room for `extra` positions behind those that `count` slots from `first` hold. */
  reserve(first: number, count: number, extra: number): Promise<void>
  /**
   * Slots as inputs and outputs of the decode program, which are the same memory; of a single slot no more than it holds with
   * `extra` positions, or a few more. The same object as before where it is the same view. Room must be reserved.
   */
  view(first: number, count: number, extra: number): CacheView
  /**
   * Keeps the new positions `indices`, ascending, of those that a forward has written behind what the cache holds; `tokens` are
   * theirs. Where they are the first ones nothing moves.
   */
  store(cache: Cache, indices: readonly number[], tokens: readonly number[]): Promise<void>
  /** Frees the buffers. No cache may be open. */
  release(): Promise<void>
}

export interface CacheView {
  feeds: Record<string, Resident>
  fetches: Record<string, Resident>
}

/** Room and views are multiples of this many positions: attention runs over a whole view, and binding a new one costs time. */
const STEP = 64
/** A cache grows by a quarter at least: growing copies it, and room costs memory. */
const GROWTH = 1.25

/** Room for so many positions stays when no text is left: short texts take hardly longer than allocating it. */
const LASTING = 512

interface Slot {
  open: boolean
  tokens: number[]
  /** Which texts may share the tokens; undefined for none. */
  shared: { blockSize: number; group: string } | undefined
  /** Ordinal of the last use, for the choice of what is forgotten first. */
  used: number
}

/**
 * `name` must be unique in the executor. `keep` is the number of free slots that may keep their tokens; with 0 large buffers
 * are gone when the last cache is.
 */
export function createCaches(executor: Executor, dimensions: Dimensions, name: string, keep = 0): Caches {
  const { layers, kvHeads, headDim } = dimensions
  const kinds = ['key', 'value'].flatMap((kind) => Array.from({ length: layers }, (_, layer) => `${kind}.${layer}`))
  const resident = (kind: string) => `${name}.${kind}`
  const residents = kinds.map(resident)
  const width = kvHeads * headDim
  const taken = new Map<number, Slot>()
  let capacity = 0
  let slots = 0
  let clock = 0
  let opened = 0
  let last: { key: string; view: CacheView } | undefined
  /** Elements of a slot in each buffer. */
  const stride = () => capacity * width

  async function resize(toSlots: number, toCapacity: number): Promise<void> {
    const moves = [...taken]
      .filter(([slot, { tokens }]) => slot < slots && tokens.length > 0)
      .map(([slot, { tokens }]) => ({
        from: slot * stride(),
        to: slot * toCapacity * width,
        length: tokens.length * width,
      }))
    await executor.resize(residents, 'float32', toSlots * toCapacity * width, moves)
    slots = toSlots
    capacity = toCapacity
    last = undefined
  }

  const lengths = (first: number, count: number): number[] =>
    Array.from({ length: count }, (_, i) => taken.get(first + i)?.tokens.length ?? 0)

  async function reserve(first: number, count: number, extra: number): Promise<void> {
    const needed = Math.max(...taken.keys()) + 1
    const length = Math.max(...lengths(first, count)) + extra
    const room = length > capacity ? roundUp(Math.max(length, GROWTH * capacity)) : capacity
    // Slots that no text has any more get no room.
    if (needed > slots) await resize(Math.max(needed, slots * 2), room)
    else if (room > capacity) await resize(needed, room)
  }

  function firstFree(): number {
    let slot = 0
    while (taken.has(slot)) slot++
    return slot
  }

  function take(slot: number, tokens: number[], shared: Slot['shared']): Cache {
    const state: Slot = { open: true, tokens, shared, used: clock++ }
    taken.set(slot, state)
    opened++
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
        opened--
        state.used = clock++
        if (keep === 0 || state.shared === undefined || state.tokens.length === 0) taken.delete(slot)
        const kept = [...taken].filter(([, { open }]) => !open).sort(([, a], [, b]) => a.used - b.used)
        for (const [old] of kept.slice(0, Math.max(0, kept.length - keep))) taken.delete(old)
        if (taken.size === 0 && slots * capacity > LASTING) await release()
      },
    }
  }

  async function release(): Promise<void> {
    if (slots === 0) return
    capacity = 0
    slots = 0
    last = undefined
    await executor.free(...residents)
  }

  return {
    release,
    open: () => take(firstFree(), [], undefined),
    async openWith({ tokens, blockSize, sharing: { group, step } }) {
      const shared = { blockSize, group }
      let best: { slot: number; length: number } | undefined
      for (const [slot, state] of taken) {
        if (state.shared?.blockSize !== blockSize || state.shared.group !== group) continue
        const length = commonBlocks(state.tokens, tokens, blockSize, step)
        if (length > (best?.length ?? 0)) best = { slot, length }
      }
      if (!best) return take(firstFree(), [], shared)
      const source = taken.get(best.slot) as Slot
      // What the source holds beyond the shared part may serve another: it stays where half or more would be lost.
      if (!source.open && 2 * best.length > source.tokens.length) {
        source.tokens.length = best.length
        return take(best.slot, source.tokens, shared)
      }
      const cache = take(firstFree(), [], shared)
      await reserve(cache.slot, 1, best.length)
      const [from, to] = [best.slot * stride(), cache.slot * stride()]
      await executor.move(residents, [{ from, to, length: best.length * width }])
      cache.append(tokens.slice(0, best.length))
      return cache
    },
    get count() {
      return opened
    },
    lengths,
    reserve,
    view(first, count, extra) {
      const length = Math.max(...lengths(first, count)) + extra
      const positions = count === 1 ? roundUp(length) : capacity
      const key = [first, count, positions].join()
      if (last?.key !== key) {
        const part = (name: string) => ({ resident: name, offset: first * stride(), shape: [count, positions, width] })
        const named = (time: string) =>
          Object.fromEntries(kinds.map((kind, i) => [`${time}_${kind}`, part(residents[i])]))
        last = { key, view: { feeds: named('past'), fetches: named('present') } }
      }
      return last.view
    },
    async store(cache, indices, tokens) {
      const begin = cache.slot * capacity + cache.length
      const moves = ranges(indices)
        .filter(({ start, before }) => start !== before)
        .map(({ start, count, before }) => ({
          from: (begin + start) * width,
          to: (begin + before) * width,
          length: count * width,
        }))
      if (moves.length > 0) await executor.move(residents, moves)
      cache.append(tokens)
    },
  }
}

const roundUp = (length: number): number => Math.ceil(length / STEP) * STEP

/** Positions that two texts share in whole blocks, less than all of `wanted`: its last token must still predict. */
function commonBlocks(known: readonly number[], wanted: readonly number[], blockSize: number, step: number): number {
  const most = Math.min(known.length, wanted.length - 1)
  let length = 0
  while (length < most && known[length] === wanted[length]) length++
  length -= length % step
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
