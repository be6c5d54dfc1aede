// Buffers with the keys and values of texts of about the same length: a slot each, so that one forward runs over several. They grow in
// steps. Knows where what lies, not who shares what.
import type { Dimensions } from '../models/types.ts'
import type { Executor, Move, Resident } from '../runtime/executor.ts'

/** What lies in a slot. */
export interface Slot {
  open: boolean
  tokens: number[]
  /** Which texts may share the tokens; undefined for none. */
  shared: { blockSize: number; group: string } | undefined
  /** Ordinal of the last use, for the choice of what is forgotten first. */
  used: number
}

export interface CacheView {
  feeds: Record<string, Resident>
  fetches: Record<string, Resident>
}

export interface Pool {
  /** Positions of the longest text that belongs here. */
  readonly limit: number
  /** What lies here, by slot. */
  readonly taken: Map<number, Slot>
  firstFree(): number
  /** Positions that each of `count` slots from `first` holds. */
  lengths(first: number, count: number): number[]
  /** Makes room for `extra` positions behind those that `count` slots from `first` hold. */
  reserve(first: number, count: number, extra: number): Promise<void>
  /** Makes room for `length` positions in a slot that is free. */
  prepare(slot: number, length: number): Promise<void>
  /**
   * Slots as inputs and outputs of the decode program, which are the same memory; of a single slot no more than it holds with
   * `extra` positions, or a few more. The same object as before where it is the same view. Room must be reserved.
   */
  view(first: number, count: number, extra: number): CacheView
  /** Moves positions within a slot, one move after the other. */
  move(slot: number, moves: readonly Move[]): Promise<void>
  /** Copies the first `length` positions of a slot to another, of this or another pool. Room must be there. */
  copy(slot: number, length: number, to: Pool, toSlot: number): Promise<void>
  /** Gives the buffers back, or if no more than little is lost, keeps them. */
  rest(): Promise<void>
  release(): Promise<void>
  /** For `copy`: names of the buffers, and where a slot begins in them. */
  readonly residents: readonly string[]
  startOf(slot: number): number
}

/** Room and views are multiples of this many positions: attention runs over a whole view, and binding a new one costs time. */
const STEP = 64
/** A single cache grows by a quarter at least, several to twice: growing copies them all, and room costs memory. */
const GROWTH = { one: 1.25, several: 2 }

/** Room for so many positions stays when no text is left: short texts take hardly longer than allocating it. */
const LASTING = 512

/** `name` must be unique in the executor. */
export function createPool(
  executor: Executor,
  { layers, kvHeads, headDim }: Dimensions,
  { name, limit }: { name: string; limit: number },
): Pool {
  const kinds = ['key', 'value'].flatMap((kind) => Array.from({ length: layers }, (_, layer) => `${kind}.${layer}`))
  const residents = kinds.map((kind) => `${name}.${kind}`)
  const width = kvHeads * headDim
  const taken = new Map<number, Slot>()
  let capacity = 0
  let slots = 0
  let last: { key: string; view: CacheView } | undefined
  const startOf = (slot: number) => slot * capacity * width

  async function resize(toSlots: number, toCapacity: number): Promise<void> {
    const moves = [...taken]
      .filter(([slot, { tokens }]) => slot < slots && tokens.length > 0)
      .map(([slot, { tokens }]) => ({
        from: startOf(slot),
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

  /** Room for `needed` slots of `length` positions. */
  async function ensure(needed: number, length: number): Promise<void> {
    const grown = capacity * (needed > 1 ? GROWTH.several : GROWTH.one)
    const room = length > capacity ? roundUp(Math.max(length, Math.min(grown, limit))) : capacity
    // Slots that no text has any more get no room.
    if (needed > slots) await resize(Math.max(needed, slots * 2), room)
    else if (room > capacity) await resize(needed, room)
  }

  async function release(): Promise<void> {
    if (slots === 0) return
    capacity = 0
    slots = 0
    last = undefined
    await executor.free(...residents)
  }

  return {
    limit,
    taken,
    residents,
    startOf,
    lengths,
    release,
    firstFree() {
      let slot = 0
      while (taken.has(slot)) slot++
      return slot
    },
    reserve: (first, count, extra) => ensure(Math.max(...taken.keys()) + 1, Math.max(...lengths(first, count)) + extra),
    prepare: (slot, length) => ensure(Math.max(slot, ...taken.keys()) + 1, length),
    view(first, count, extra) {
      const length = Math.max(...lengths(first, count)) + extra
      const positions = count === 1 ? roundUp(length) : capacity
      const key = [first, count, positions].join()
      if (last?.key !== key) {
        const part = (resident: string) => ({ resident, offset: startOf(first), shape: [count, positions, width] })
        const named = (time: string) =>
          Object.fromEntries(kinds.map((kind, i) => [`${time}_${kind}`, part(residents[i])]))
        last = { key, view: { feeds: named('past'), fetches: named('present') } }
      }
      return last.view
    },
    move: (slot, moves) =>
      executor.move(
        residents,
        moves.map(({ from, to, length }) => ({
          from: startOf(slot) + from * width,
          to: startOf(slot) + to * width,
          length: length * width,
        })),
      ),
    copy: (slot, length, to, toSlot) =>
      executor.move(residents, [{ from: startOf(slot), to: to.startOf(toSlot), length: length * width }], to.residents),
    async rest() {
      if (taken.size === 0 && slots * capacity > LASTING) await release()
    },
  }
}

const roundUp = (length: number): number => Math.ceil(length / STEP) * STEP
