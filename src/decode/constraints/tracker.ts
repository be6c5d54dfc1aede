// Follows one text under a constraint whose tokens are decided in any order: which tokens a hole may hold such that the
// other holes can still be filled and the text can end in time. Knows nothing about models or confidence.
import { UserError } from '../../core/types.ts'
import { type Followed, follow, forget, HOLE, isViable, left, possibleAt, refresh } from './boundaries.ts'
import type { TokenMachine } from './lift.ts'
import { DEAD } from './machine.ts'
import { inTurns, type Turns } from './turns.ts'

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

/**
 * `maxTokens`: positions that the text may have; it will have ended there, with or without an EOS. Positions beyond
 * them hold anything. Throws UserError where they are too few for any text of the constraint.
 */
export function createTracker(machine: TokenMachine, maxTokens: number, turns?: Turns): Tracker {
  const root = machine.start()
  const needed = machine.distance(root)
  if (needed === Number.POSITIVE_INFINITY)
    throw new UserError('constraint: no text of it can be written with this vocabulary, or only a far too long one')
  if (needed > maxTokens)
    throw new UserError(
      `constraint: the shortest text found takes ${needed} tokens, but only ${maxTokens} may be generated; allow at least ${needed}`,
    )
  const text: Followed = {
    ...{ machine, maxTokens, base: 0, root, witness: [root], last: -1, stale: -1 },
    ...{ tokens: [], hints: [], possible: [], viable: [] },
  }
  return {
    get length() {
      return text.base + text.tokens.length
    },
    open(count) {
      for (let i = 0; i < count; i++) {
        text.tokens.push(HOLE)
        text.hints.push(HOLE)
        text.viable.push(new Map())
      }
    },
    allowed: (position) => allowed(text, indexOf(text, position)),
    commit: (position, token) => commit(text, indexOf(text, position), token),
    clear: (position) => clear(text, indexOf(text, position)),
    suggest(position, token) {
      const index = indexOf(text, position)
      if (text.tokens[index] !== HOLE || text.hints[index] === token) return
      text.hints[index] = token
      forget(text, index)
    },
    settle: (position) => settle(text, position),
    spelled: (most) => machine.spelled(text.root, Math.min(most, left(text, 0))),
    inTurns: (work) => inTurns(work, turns),
  }
}

function indexOf({ base, tokens }: Followed, position: number): number {
  const index = position - base
  if (!(Number.isInteger(index) && index >= 0 && index < tokens.length))
    throw new RangeError(`position ${position} is not in [${base}, ${base + tokens.length})`)
  return index
}

function allowed(text: Followed, index: number): Uint32Array {
  const { machine } = text
  refresh(text)
  const bits = new Uint32Array(Math.ceil(machine.vocabulary.size / 32))
  if (left(text, index) <= 0) return bits.fill(0xffffffff)
  for (const state of possibleAt(text, index).states)
    for (const { target, tokens: group } of machine.groups(state)) {
      if (!isViable(text, target, index + 1)) continue
      if (group instanceof Int32Array) for (const token of group) bits[token >>> 5] |= 1 << (token & 31)
      else for (let i = 0; i < bits.length; i++) bits[i] |= group[i]
    }
  return bits
}

function commit(text: Followed, index: number, token: number): boolean {
  refresh(text)
  const { states } = possibleAt(text, index)
  const { possible, viable } = text
  let next = DEAD
  const at = states.findIndex((state) => {
    next = follow(text, state, token, index)
    return isViable(text, next, index + 1)
  })
  if (at === -1) return false
  const last = Math.max(text.last, index)
  // The witness goes back along the possible states and on along the viable ones.
  const path: number[] = []
  for (let i = index, k = at; i >= 0; k = possible[i].from[k], i--) path[i] = possible[i].states[k]
  for (let i = index + 1; i <= last + 1; i++) {
    path[i] = next
    if (i <= text.last) next = left(text, i) <= 0 ? next : viable[i].get(next)!
  }
  text.last = last
  text.witness = path
  text.tokens[index] = token
  text.hints[index] = HOLE
  forget(text, index)
  return true
}

function clear(text: Followed, index: number): void {
  const { tokens, witness, possible, last } = text
  if (tokens[index] === HOLE) return
  tokens[index] = HOLE
  while (text.last >= 0 && tokens[text.last] === HOLE) text.last--
  witness.length = text.last + 2
  forget(text, Math.max(last, index))
  possible.length = Math.min(possible.length, index + 1)
}

function settle(text: Followed, position: number): void {
  const count = position - text.base
  if (!(count >= 0 && count <= text.tokens.length) || text.tokens.slice(0, count).includes(HOLE))
    throw new RangeError(`position ${position} has holes before it`)
  refresh(text)
  for (let i = 0; i < count; i++) text.root = follow(text, text.root, text.tokens[i], i)
  text.base = position
  text.tokens = text.tokens.slice(count)
  text.hints = text.hints.slice(count)
  text.viable = text.viable.slice(count)
  text.last = Math.max(-1, text.last - count)
  text.witness = text.last === -1 ? [text.root] : text.witness.slice(count)
  text.possible = []
}
