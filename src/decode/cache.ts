// The KV caches of the sequences that are decoded at a time: slots of shared buffers, so that one forward runs over several.
// The buffers grow in steps. Knows sizes, not tokens; only one caller at a time may reserve or run.
import type { Dimensions } from '../models/types.ts'
import type { Copy, Executor, Resident } from '../runtime/executor.ts'

/** The cache of one sequence. */
export interface Cache {
  readonly slot: number
  /** Positions stored so far. */
  readonly length: number
  /** Says that `count` more positions are stored. */
  append(count: number): void
  /** Gives the slot back. */
  free(): Promise<void>
}

export interface Caches {
  /** An empty cache, in the first free slot. */
  open(): Cache
  /** Caches that are open. */
  readonly count: number
  /** Makes room for `length` positions in every slot that is open. */
  reserve(length: number): Promise<void>
  /** The buffers of `slots` slots from `first` as inputs of the decode program; feeding them moves nothing. */
  feeds(first: number, slots: number): Record<string, Resident>
  /** Stores the first `count` new positions that row `row` of the forward has. Room must be reserved. */
  copies(cache: Cache, row: number, count: number): Copy[]
}

/** Positions that a cache grows by: attention runs over the whole buffer, so a larger step costs time. */
const STEP = 256

/** `name` must be unique in the executor. */
export function createCaches(executor: Executor, dimensions: Dimensions, name: string): Caches {
  const { layers, kvHeads, headDim, maxPositions } = dimensions
  const kinds = ['key', 'value'].flatMap((kind) => Array.from({ length: layers }, (_, layer) => `${kind}.${layer}`))
  const resident = (kind: string) => `${name}.${kind}`
  const open = new Map<number, Cache>()
  let capacity = 0
  let slots = 0
  const shape = () => [slots, kvHeads, capacity, headDim]
  const matrix = () => capacity * headDim

  async function resize(toSlots: number, toCapacity: number): Promise<void> {
    const size = toSlots * kvHeads * toCapacity * headDim
    // One buffer at a time, so that the old and the new cache are never both in memory.
    for (const kind of kinds) {
      if (open.size === 0 || slots === 0) await executor.allocate(resident(kind), 'float32', size)
      else {
        const old = (await executor.read(resident(kind))) as Float32Array
        const grown = new Float32Array(size)
        for (const { slot, length } of open.values())
          for (let head = slot * kvHeads; slot < slots && head < (slot + 1) * kvHeads; head++) {
            const filled = old.subarray(head * matrix(), head * matrix() + length * headDim)
            grown.set(filled, head * toCapacity * headDim)
          }
        await executor.allocate(resident(kind), 'float32', grown)
      }
    }
    slots = toSlots
    capacity = toCapacity
  }

  return {
    open() {
      let slot = 0
      while (open.has(slot)) slot++
      let length = 0
      const cache: Cache = {
        slot,
        get length() {
          return length
        },
        append(count) {
          length += count
        },
        async free() {
          if (open.get(slot) !== cache) return
          open.delete(slot)
          if (open.size > 0) return
          capacity = 0
          slots = 0
          await Promise.all(kinds.map((kind) => executor.free(resident(kind))))
        },
      }
      open.set(slot, cache)
      return cache
    },
    get count() {
      return open.size
    },
    async reserve(length) {
      const needed = Math.max(...open.keys()) + 1
      const room = Math.min(Math.ceil(Math.max(length, 1) / STEP) * STEP, maxPositions)
      if (needed > slots || room > capacity)
        await resize(needed > slots ? Math.max(needed, slots * 2) : slots, Math.max(room, capacity))
    },
    feeds: (first, count) =>
      Object.fromEntries(
        kinds.map((kind) => [
          `past_${kind}`,
          { resident: resident(kind), offset: first * kvHeads * matrix(), shape: [count, ...shape().slice(1)] },
        ]),
      ),
    copies: ({ slot, length }, row, count) =>
      count === 0
        ? []
        : kinds.map((kind) => ({
            output: `present_${kind}`,
            resident: resident(kind),
            shape: shape(),
            rows: { from: row, to: slot },
            axis: 2,
            start: 0,
            length: count,
            offset: length,
          })),
  }
}
