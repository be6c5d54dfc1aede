// The KV cache of one sequence: fixed buffers in the executor that grow in steps. Knows sizes, not tokens.
import type { Dimensions } from '../models/types.ts'
import type { Copy, Executor, Resident } from '../runtime/executor.ts'

export interface Cache {
  /** Positions stored so far. */
  readonly length: number
  /** Makes room for `length` positions. */
  reserve(length: number): Promise<void>
  /** The buffers as inputs of the decode program; feeding them moves nothing. */
  feeds(): Record<string, Resident>
  /** Stores the first `count` new positions of the forward. Room must be reserved; `append` says that it has run. */
  copies(count: number): Copy[]
  append(count: number): void
  free(): Promise<void>
}

/** Positions that a cache grows by: attention runs over the whole buffer, so a larger step costs time. */
const STEP = 256

/** An empty cache. `name` must be unique in the executor. */
export async function createCache(executor: Executor, dimensions: Dimensions, name: string): Promise<Cache> {
  const { layers, kvHeads, headDim, maxPositions } = dimensions
  const kinds = ['key', 'value'].flatMap((kind) => Array.from({ length: layers }, (_, layer) => `${kind}.${layer}`))
  const resident = (kind: string) => `${name}.${kind}`
  let length = 0
  let capacity = Math.min(STEP, maxPositions)
  const shape = () => [1, kvHeads, capacity, headDim]
  await Promise.all(kinds.map((kind) => executor.allocate(resident(kind), 'float32', kvHeads * capacity * headDim)))

  async function grow(to: number): Promise<void> {
    // One buffer at a time, so that the old and the new cache are never both in memory.
    for (const kind of kinds) {
      const old = await executor.read(resident(kind))
      const grown = new Float32Array(kvHeads * to * headDim)
      for (let head = 0; head < kvHeads; head++) {
        const start = head * capacity * headDim
        grown.set((old as Float32Array).subarray(start, start + length * headDim), head * to * headDim)
      }
      await executor.allocate(resident(kind), 'float32', grown)
    }
    capacity = to
  }

  return {
    get length() {
      return length
    },
    async reserve(needed) {
      if (needed > capacity) await grow(Math.min(Math.ceil(needed / STEP) * STEP, maxPositions))
    },
    feeds: () =>
      Object.fromEntries(kinds.map((kind) => [`past_${kind}`, { resident: resident(kind), shape: shape() }])),
    copies: (count) =>
      count === 0
        ? []
        : kinds.map((kind) => ({
            output: `present_${kind}`,
            resident: resident(kind),
            shape: shape(),
            axis: 2,
            start: 0,
            length: count,
            offset: length,
          })),
    append(count) {
      length += count
    },
    async free() {
      await Promise.all(kinds.map((kind) => executor.free(resident(kind))))
    },
  }
}
