// Follows one text under a constraint whose tokens are decided in any order: which tokens a hole may hold such that the
// other holes can still be filled and the text can end in time. Knows nothing about models or confidence.
import { UserError } from '../../core/types.ts'
import type { TokenMachine } from './lift.ts'
import { DEAD } from './machine.ts'
import { checkTurn, inTurns, noteWork, type Turns } from './turns.ts'

/** A position without a token. */
const HOLE = -1

export interface Tracker {
  /** Positions so far. */
  readonly length: number
  /** Adds holes at the end. */
  open(count: number): void
  /**
   * The tokens that a position may hold with all others as they are, a bit each: token t is bit t % 32 of word t / 32. There
   * is at least one. A position that holds a token is answered as if it were a hole, for those who edit.
   */
  allowed(position: number): Uint32Array
  /** Puts a token where it is allowed, else changes nothing and returns false. */
  commit(position: number, token: number): boolean
  /** Makes a position a hole again. */
  clear(position: number): void
  /** What the model would put into a hole: of more possibilities than are followed, those go first. */
  suggest(position: number, token: number): void
  /** Positions before this one, which have tokens, change no more. */
  settle(position: number): void
  /** Tokens that spell what must follow what is settled, whichever tokens are chosen: at most `most`, none where there is a choice. */
  spelled(most: number): number[]
  /** Asks it something in turns, if it has any: `work` may be begun several times. Asked directly it takes its time. */
  inTurns<T>(work: () => T): Promise<T>
}

/** States that are followed at one position. Between the first hole and the last token this may hide some possibilities. */
const FOLLOWED = 8
/** States at one position whose completability is looked into, in one question. */
const LOOKED_INTO = 32

/**
 * `maxTokens`: positions that the text may have; it will have ended there, with or without an EOS. Positions beyond
 * them hold anything. Throws UserError where they are too few for any text of the constraint.
 *
 * Works on boundaries: boundary i lies before position i. A state is possible at a boundary if the positions before it lead
 * there; it is viable if the positions from there on lead to the end in time. Viability is decided exactly or, where there is
 * too much to look into, against a state, never for one. A path of viable states is kept (the witness), so that a token that
 * was allowed once always leaves a way to the end.
 */
export function createTracker(machine: TokenMachine, maxTokens: number, turns?: Turns): Tracker {
  const { vocabulary } = machine
  const words = Math.ceil(vocabulary.size / 32)
  const start = machine.start()
  const needed = machine.distance(start)
  if (needed === Number.POSITIVE_INFINITY)
    throw new UserError('constraint: no text of it can be written with this vocabulary, or only a far too long one')
  if (needed > maxTokens)
    throw new UserError(
      `constraint: the shortest text found takes ${needed} tokens, but only ${maxTokens} may be generated; allow at least ${needed}`,
    )

  // Positions from `base` on; everything here is indexed by position - base.
  let base = 0
  let tokens: number[] = []
  let hints: number[] = []
  let root = start
  /** States at the boundaries up to the one behind the last token. */
  let witness: number[] = [root]
  /** Index of the last token, -1 if there is none. */
  let last = -1
  /** Possible states at each boundary and the index of each in the list before; made when needed. */
  let possible: { states: number[]; from: number[] }[] = []
  /** Of each boundary the states that were looked into: where the viable ones go next, DEAD for the others. */
  let viable: Map<number, number>[] = []

  /** Up to this index suggestions have changed what is worth looking into. */
  let stale = -1

  const left = (boundary: number) => maxTokens - base - boundary
  const inTime = (state: number, boundary: number) =>
    state !== DEAD && (left(boundary) < 0 || machine.distance(state) <= left(boundary))

  function seed(): void {
    for (let i = 0; i <= last; i++) viable[i].set(witness[i], witness[i + 1])
  }

  /** Forgets what followed from the token or the suggestion at an index. */
  function forget(index: number): void {
    possible.length = Math.min(possible.length, index + 1)
    stale = Math.max(stale, index)
  }

  function refresh(): void {
    if (stale === -1) return
    for (let i = 0; i <= stale; i++) viable[i].clear()
    stale = -1
    seed()
  }

  /** Where a token leads from a boundary; beyond the limit every token is as good. */
  const follow = (state: number, token: number, index: number): number =>
    left(index) <= 0 ? state : machine.next(state, token)

  function isViable(state: number, index: number): boolean {
    if (!inTime(state, index)) return false
    if (index > last || left(index) <= 0) return true
    const known = viable[index].get(state)
    if (known !== undefined) return known !== DEAD
    checkTurn()
    let way = DEAD
    if (tokens[index] !== HOLE) {
      const next = follow(state, tokens[index], index)
      if (isViable(next, index + 1)) way = next
    } else if (viable[index].size < LOOKED_INTO) {
      const hinted = hints[index] === HOLE ? DEAD : machine.next(state, hints[index])
      if (isViable(hinted, index + 1)) way = hinted
      else
        for (const { target } of machine.groups(state)) {
          checkTurn()
          if (!isViable(target, index + 1)) continue
          way = target
          break
        }
    }
    viable[index].set(state, way)
    noteWork()
    return way !== DEAD
  }

  function possibleAt(index: number): { states: number[]; from: number[] } {
    if (possible.length === 0) possible.push({ states: [root], from: [0] })
    while (possible.length <= index) {
      const at = possible.length - 1
      const { states } = possible[at]
      const found: { states: number[]; from: number[] } = { states: [], from: [] }
      const add = (state: number, from: number) => {
        if (found.states.length < FOLLOWED && !found.states.includes(state) && isViable(state, at + 1)) {
          found.states.push(state)
          found.from.push(from)
        }
      }
      if (left(at) <= 0) for (const [i, state] of states.entries()) add(state, i)
      else if (tokens[at] !== HOLE) for (const [i, state] of states.entries()) add(machine.next(state, tokens[at]), i)
      else {
        if (at <= last) add(witness[at + 1], states.indexOf(witness[at]))
        if (hints[at] !== HOLE) for (const [i, state] of states.entries()) add(machine.next(state, hints[at]), i)
        for (const [i, state] of states.entries()) {
          if (found.states.length >= FOLLOWED) break
          for (const { target } of machine.groups(state)) add(target, i)
        }
      }
      possible.push(found)
    }
    return possible[index]
  }

  function indexOf(position: number): number {
    const index = position - base
    if (!(Number.isInteger(index) && index >= 0 && index < tokens.length))
      throw new RangeError(`position ${position} is not in [${base}, ${base + tokens.length})`)
    return index
  }

  return {
    get length() {
      return base + tokens.length
    },
    open(count) {
      for (let i = 0; i < count; i++) {
        tokens.push(HOLE)
        hints.push(HOLE)
        viable.push(new Map())
      }
    },
    allowed(position) {
      const index = indexOf(position)
      refresh()
      const bits = new Uint32Array(words)
      if (left(index) <= 0) return bits.fill(0xffffffff)
      for (const state of possibleAt(index).states)
        for (const { target, tokens: group } of machine.groups(state)) {
          if (!isViable(target, index + 1)) continue
          if (group instanceof Int32Array) for (const token of group) bits[token >>> 5] |= 1 << (token & 31)
          else for (let i = 0; i < words; i++) bits[i] |= group[i]
        }
      return bits
    },
    commit(position, token) {
      const index = indexOf(position)
      refresh()
      const { states } = possibleAt(index)
      let next = DEAD
      const at = states.findIndex((state) => {
        next = follow(state, token, index)
        return isViable(next, index + 1)
      })
      if (at === -1) return false
      // The witness goes back along the possible states and on along the viable ones.
      const path: number[] = []
      for (let i = index, k = at; i >= 0; k = possible[i].from[k], i--) path[i] = possible[i].states[k]
      for (let i = index + 1; i <= Math.max(last, index) + 1; i++) {
        path[i] = next
        if (i <= last) next = left(i) <= 0 ? next : viable[i].get(next)!
      }
      last = Math.max(last, index)
      witness = path
      tokens[index] = token
      hints[index] = HOLE
      forget(index)
      return true
    },
    clear(position) {
      const index = indexOf(position)
      if (tokens[index] === HOLE) return
      const before = last
      tokens[index] = HOLE
      while (last >= 0 && tokens[last] === HOLE) last--
      witness.length = last + 2
      forget(Math.max(before, index))
      possible.length = Math.min(possible.length, index + 1)
    },
    suggest(position, token) {
      const index = indexOf(position)
      if (tokens[index] !== HOLE || hints[index] === token) return
      hints[index] = token
      forget(index)
    },
    settle(position) {
      const count = position - base
      if (!(count >= 0 && count <= tokens.length) || tokens.slice(0, count).includes(HOLE))
        throw new RangeError(`position ${position} has holes before it`)
      refresh()
      for (let i = 0; i < count; i++) root = follow(root, tokens[i], i)
      base = position
      tokens = tokens.slice(count)
      hints = hints.slice(count)
      viable = viable.slice(count)
      last = Math.max(-1, last - count)
      witness = last === -1 ? [root] : witness.slice(count)
      possible = []
    },
    spelled: (most) => machine.spelled(root, Math.min(most, left(0))),
    inTurns: (work) => inTurns(work, turns),
  }
}
