// The boundaries of a text under a constraint: boundary i lies before position i. A state is possible at a boundary if the
// positions before it lead there; it is viable if the positions from there on lead to the end in time. Viability is decided
// exactly or, where there is too much to look into, against a state, never for one. A path of viable states is kept (the
// witness), so that a token that was allowed once always leaves a way to the end.
import type { TokenMachine } from './lift.ts'
import { DEAD } from './machine.ts'
import { checkTurn, noteWork } from './turns.ts'

/** A position without a token. */
export const HOLE = -1

/** States that are followed at one position. Between the first hole and the last token this may hide some possibilities. */
const FOLLOWED = 8
/** States at one position whose completability is looked into, in one question. */
const LOOKED_INTO = 32

/** The part of a text that may change: positions from `base` on. Everything in it is indexed by position - base. */
export interface Followed {
  readonly machine: TokenMachine
  /** Positions that the whole text may have; those beyond hold anything. */
  readonly maxTokens: number
  base: number
  /** The state before `base`. */
  root: number
  /** A token of each position, or HOLE. */
  tokens: number[]
  /** What the model would put there, or HOLE. */
  hints: number[]
  /** States at the boundaries up to the one behind the last token. */
  witness: number[]
  /** Index of the last token, -1 if there is none. */
  last: number
  /** Possible states at each boundary and the index of each in the list before; made when needed. */
  possible: Possible[]
  /** Of each boundary the states that were looked into: where the viable ones go next, DEAD for the others. */
  viable: Map<number, number>[]
  /** Up to this index suggestions have changed what is worth looking into. */
  stale: number
}

interface Possible {
  states: number[]
  from: number[]
}

/** Positions that are left behind a boundary. */
export const left = ({ maxTokens, base }: Followed, boundary: number): number => maxTokens - base - boundary

/** Where a token leads from a boundary; beyond the limit every token is as good. */
export const follow = (text: Followed, state: number, token: number, index: number): number =>
  left(text, index) <= 0 ? state : text.machine.next(state, token)

/** Forgets what followed from the token or the suggestion at an index. */
export function forget(text: Followed, index: number): void {
  text.possible.length = Math.min(text.possible.length, index + 1)
  text.stale = Math.max(text.stale, index)
}

/** Makes what was forgotten anew, from the witness on. */
export function refresh(text: Followed): void {
  const { viable, witness } = text
  if (text.stale === -1) return
  for (let i = 0; i <= text.stale; i++) viable[i].clear()
  text.stale = -1
  for (let i = 0; i <= text.last; i++) viable[i].set(witness[i], witness[i + 1])
}

export function isViable(text: Followed, state: number, index: number): boolean {
  const room = left(text, index)
  if (state === DEAD || (room >= 0 && text.machine.distance(state) > room)) return false
  if (index > text.last || room <= 0) return true
  const known = text.viable[index].get(state)
  if (known !== undefined) return known !== DEAD
  checkTurn()
  const way = wayFrom(text, state, index)
  text.viable[index].set(state, way)
  noteWork()
  return way !== DEAD
}

/** A viable state behind the position at an index, from a state before it; DEAD where none was found. */
function wayFrom(text: Followed, state: number, index: number): number {
  const { machine, tokens, hints, viable } = text
  if (tokens[index] !== HOLE) {
    const next = follow(text, state, tokens[index], index)
    return isViable(text, next, index + 1) ? next : DEAD
  }
  if (viable[index].size >= LOOKED_INTO) return DEAD
  const hinted = hints[index] === HOLE ? DEAD : machine.next(state, hints[index])
  if (isViable(text, hinted, index + 1)) return hinted
  for (const { target } of machine.groups(state)) {
    checkTurn()
    if (isViable(text, target, index + 1)) return target
  }
  return DEAD
}

/** What is possible at a boundary. */
export function possibleAt(text: Followed, index: number): Possible {
  const { possible, root } = text
  if (possible.length === 0) possible.push({ states: [root], from: [0] })
  while (possible.length <= index) possible.push(possibleBehind(text, possible.length - 1))
  return possible[index]
}

/** What is possible behind the position at an index. */
function possibleBehind(text: Followed, at: number): Possible {
  const { machine, tokens, hints, witness } = text
  const { states } = text.possible[at]
  const found: Possible = { states: [], from: [] }
  const add = (state: number, from: number) => {
    if (found.states.length < FOLLOWED && !found.states.includes(state) && isViable(text, state, at + 1)) {
      found.states.push(state)
      found.from.push(from)
    }
  }
  if (left(text, at) <= 0) for (const [i, state] of states.entries()) add(state, i)
  else if (tokens[at] !== HOLE) for (const [i, state] of states.entries()) add(machine.next(state, tokens[at]), i)
  else {
    if (at <= text.last) add(witness[at + 1], states.indexOf(witness[at]))
    if (hints[at] !== HOLE) for (const [i, state] of states.entries()) add(machine.next(state, hints[at]), i)
    for (const [i, state] of states.entries()) {
      if (found.states.length >= FOLLOWED) break
      for (const { target } of machine.groups(state)) add(target, i)
    }
  }
  return found
}
