// The KV caches of the sequences that are decoded at a time: slots of shared buffers (cache-pool.ts), so that one forward runs over
// several. Texts of unlike length have buffers of their own: a long one neither gives its room to all others nor makes their
// attention as long. A slot that is given back may keep its tokens for a while, so that a prompt which begins like an earlier
// one need not be computed again. Only one caller at a time may open with a prompt, make room, reserve or run;
// `open` may come at any time, and takes a slot among the short texts.
import type { Dimensions } from '../models/types.ts'
import type { Executor, Move } from '../runtime/executor.ts'
import { createPool, type Pool, type Slot } from './cache-pool.ts'

/** The cache of one sequence. */
export interface Cache {
  /** Where it lies now. */
  readonly pool: Pool
  readonly slot: number
  /** Positions stored so far. */
  readonly length: number
  /** Says that these tokens lie behind the others. */
  append(tokens: readonly number[]): void
  /** Forgets what lies behind the first `length` positions. */
  truncate(length: number): void
  /** Moves where there is room for `extra` more positions, if need be. */
  makeRoom(extra: number): Promise<void>
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
  /**
   * Keeps the new positions `indices`, ascending, of those that a forward has written behind what the cache holds; `tokens` are
   * theirs. Where they are the first ones nothing moves.
   */
  store(cache: Cache, indices: readonly number[], tokens: readonly number[]): Promise<void>
  /** Frees the buffers. No cache may be open. */
  release(): Promise<void>
}

/** The longest texts of the first pool, in positions, and how many times longer those of the next are. */
const SHORT = 512
const LONGER = 4

/**
 * `name` must be unique in the executor. `keep` is the number of free slots that may keep their tokens; with 0 large buffers
 * are gone when the last cache is.
 */
export function createCaches(executor: Executor, dimensions: Dimensions, name: string, keep = 0): Caches {
  const pools: Pool[] = []
  let clock = 0
  let opened = 0

  /** Where a text of so many positions belongs. */
  function poolFor(length: number): Pool {
    for (let limit = SHORT, i = 0; ; limit *= LONGER, i++) {
      pools[i] ??= createPool(executor, dimensions, { name: `${name}.${i}`, limit })
      if (length <= limit) return pools[i]
    }
  }

  /** Forgets what was used longest ago, beyond what may be kept. */
  function forget(): void {
    const kept = pools
      .flatMap((pool) => [...pool.taken].map(([slot, state]) => ({ pool, slot, state })))
      .filter(({ state }) => !state.open)
      .sort((a, b) => a.state.used - b.state.used)
    for (const { pool, slot } of kept.slice(0, Math.max(0, kept.length - keep))) pool.taken.delete(slot)
  }

  function take({ tokens, shared }: Pick<Slot, 'tokens' | 'shared'>, place: { pool: Pool; slot: number }): Cache {
    const state: Slot = { open: true, tokens, shared, used: clock++ }
    let { pool, slot } = place
    pool.taken.set(slot, state)
    opened++
    return {
      get pool() {
        return pool
      },
      get slot() {
        return slot
      },
      get length() {
        return state.tokens.length
      },
      append(more) {
        for (const token of more) state.tokens.push(token)
      },
      truncate(length) {
        state.tokens.length = Math.min(state.tokens.length, length)
      },
      async makeRoom(extra) {
        const length = state.tokens.length + extra
        if (length <= pool.limit || !state.open) return
        const to = poolFor(length)
        const toSlot = to.firstFree()
        await to.prepare(toSlot, length)
        if (state.tokens.length > 0) await pool.copy(slot, state.tokens.length, to, toSlot)
        const from = pool
        pool.taken.delete(slot)
        ;[pool, slot] = [to, toSlot]
        pool.taken.set(slot, state)
        await from.rest()
      },
      async free() {
        if (!state.open) return
        state.open = false
        opened--
        state.used = clock++
        if (keep === 0 || state.shared === undefined || state.tokens.length === 0) pool.taken.delete(slot)
        forget()
        for (const each of pools) await each.rest()
      },
    }
  }

  /** A free slot for a text of so many positions. */
  function place(length: number): { pool: Pool; slot: number } {
    const pool = poolFor(length)
    return { pool, slot: pool.firstFree() }
  }

  return {
    open: () => take({ tokens: [], shared: undefined }, place(0)),
    async openWith({ tokens, blockSize, sharing: { group, step } }) {
      const shared = { blockSize, group }
      let best: { pool: Pool; slot: number; state: Slot; length: number } | undefined
      for (const pool of pools)
        for (const [slot, state] of pool.taken) {
          if (state.shared?.blockSize !== blockSize || state.shared.group !== group) continue
          const length = commonBlocks(state.tokens, tokens, blockSize, step)
          if (length > (best?.length ?? 0)) best = { pool, slot, state, length }
        }
      if (!best) return take({ tokens: [], shared }, place(0))
      const { pool, slot, state, length } = best
      // What the source holds beyond the shared part may serve another: it stays where half or more would be lost.
      if (!state.open && 2 * length > state.tokens.length) {
        state.tokens.length = length
        return take({ tokens: state.tokens, shared }, { pool, slot })
      }
      // Taken before anything is waited for, or another text would get the slot.
      const cache = take({ tokens: [], shared }, place(length))
      await cache.pool.prepare(cache.slot, length)
      await pool.copy(slot, length, cache.pool, cache.slot)
      cache.append(tokens.slice(0, length))
      return cache
    },
    get count() {
      return opened
    },
    async store(cache, indices, tokens) {
      const moves: Move[] = ranges(indices)
        .filter(({ start, before }) => start !== before)
        .map(({ start, count, before }) => ({ from: cache.length + start, to: cache.length + before, length: count }))
      if (moves.length > 0) await cache.pool.move(cache.slot, moves)
      cache.append(tokens)
    },
    async release() {
      for (const pool of pools) await pool.release()
    },
  }
}

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
