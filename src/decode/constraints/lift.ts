// Lifts an automaton over bytes to tokens: which tokens may follow a state, where they lead, how many tokens it takes to
// end. Knows nothing about positions or holes.
import { LIMITS } from './limits.ts'
import { DEAD, type Machine } from './machine.ts'
import { checkTurn, noteWork } from './turns.ts'
import { child, type Vocabulary } from './vocabulary.ts'

const NONE = -1

/** Nodes of the trie that are looked at before the turn may end. */
const AT_ONCE = 256

/** The state after an EOS: nothing but EOS follows. */
const ENDED = -1

/** The tokens that lead from a state to one other state. */
export interface Group {
  target: number
  /** Ascending ids where they are few, else a bit per id: token t is bit t % 32 of word t / 32. */
  tokens: Int32Array | Uint32Array
  count: number
}

export interface TokenMachine {
  vocabulary: Vocabulary
  /** See `Machine`. */
  start(): number
  /** The state after a token; DEAD where it may not follow. */
  next(state: number, token: number): number
  /** A number of tokens after which the text can have ended; Infinity where it cannot. One token makes it smaller by one. */
  distance(state: number): number
  accepts(state: number): boolean
  /** All tokens that may follow, by where they lead; the group with most tokens first. */
  groups(state: number): readonly Group[]
  /** At most `most` tokens that spell the bytes which must follow, the longest token at each place. */
  spelled(state: number, most: number): number[]
}

/** The cheapest bytes from a state on. */
interface Way {
  states: number[]
  letters: number[]
  /** Index of the last state whose distance is not known; it becomes smaller as they are made. */
  unknown: number
  /** States behind it that are known. */
  behind: number
  ended: boolean
}

/** A walk through the trie that goes on at a node. */
interface Walk {
  node: number
  /** Of the way to it, the state at each depth. */
  states: Int32Array
  /** Tokens so far, by where they lead. */
  found: Map<number, number[]>
}

export function liftToTokens(machine: Machine, vocabulary: Vocabulary): TokenMachine {
  const { nodes, byte, depth, after, first, tokens, longest, size, eosTokenIds } = vocabulary
  const words = Math.ceil(size / 32)
  const eos = new Set(eosTokenIds)
  const end: Group = { target: ENDED, tokens: Int32Array.from(eosTokenIds).sort(), count: eosTokenIds.length }
  const distances = new Map<number, number>()
  /** Ways whose distances are being made, by the state that they begin with. */
  const ways = new Map<number, Way>()
  const rows = new Map<number, Group[]>()
  const only = new Map<number, number>()
  let cached = 0

  /**
   * The fewest tokens that spell what is cheapest in bytes from a state. Along that way each state is one byte on from the
   * state before, so the distances of its states are made from its end.
   */
  function distance(state: number): number {
    if (state === ENDED) return 0
    if (state === DEAD) return Number.POSITIVE_INFINITY
    const known = distances.get(state)
    if (known !== undefined) return known
    const way = ways.get(state) ?? { states: [state], letters: [], unknown: 0, behind: 0, ended: false }
    ways.set(state, way)
    spell(way)
    const { states, letters } = way
    for (; way.unknown >= 0; way.unknown--) {
      const from = way.unknown
      if (distances.has(states[from])) continue
      checkTurn()
      let best = Number.POSITIVE_INFINITY
      for (let node = 0, j = from; j < letters.length; ) {
        node = child(vocabulary, node, letters[j])
        if (node === -1) break
        j++
        if (first[node + 1] > first[node])
          best = Math.min(best, 1 + (distances.get(states[j]) ?? Number.POSITIVE_INFINITY))
      }
      distances.set(states[from], best)
      noteWork()
    }
    ways.delete(state)
    return distances.get(state)!
  }

  /** Follows the cheapest bytes to their end, or past the first state that is known by enough for the longest token. */
  function spell(way: Way): void {
    const { states, letters } = way
    while (!way.ended) {
      const at = states[states.length - 1]
      const letter = machine.nextByte(at)
      if (at === DEAD || letter === -1 || way.behind >= longest) {
        way.ended = true
        if (at === DEAD) distances.set(at, Number.POSITIVE_INFINITY)
        else if (letter === -1) distances.set(at, 0)
      } else {
        const next = machine.step(at, letter)
        if (distances.has(at)) way.behind++
        else way.unknown = states.length - 1
        letters.push(letter)
        states.push(next)
      }
    }
  }

  /** The byte that alone may follow a state; NONE where others may, or the text may end. */
  function onlyByte(state: number): number {
    const known = only.get(state)
    if (known !== undefined) return known
    let found = NONE
    for (let letter = 0; letter < 256 && !machine.accepts(state); letter++) {
      const next = machine.step(state, letter)
      if (next === DEAD || machine.cost(next) === Number.POSITIVE_INFINITY) continue
      if (found !== NONE) {
        found = NONE
        break
      }
      found = letter
    }
    only.set(state, found)
    return found
  }

  function spelled(state: number, most: number): number[] {
    const spelling: number[] = []
    if (state === ENDED || state === DEAD) return spelling
    const letters: number[] = []
    let end = state
    while (spelling.length < most) {
      for (let letter = onlyByte(end); letter !== NONE && letters.length < longest; letter = onlyByte(end)) {
        letters.push(letter)
        end = machine.step(end, letter)
      }
      let [token, length] = [NONE, 0]
      for (let node = 0, i = 0; i < letters.length; i++) {
        node = child(vocabulary, node, letters[i])
        if (node === -1) break
        if (first[node + 1] > first[node]) [token, length] = [tokens[first[node]], i + 1]
      }
      if (token === NONE) break
      spelling.push(token)
      letters.splice(0, length)
    }
    return spelling
  }

  /** Walks that are under way, by their state. */
  const walks = new Map<number, Walk>()
  /** One walk through the trie and the automaton at once; what the automaton does not accept is skipped with all below. */
  function walk(state: number): Group[] {
    checkTurn()
    const way = walks.get(state) ?? { node: 1, states: new Int32Array(longest + 1).fill(state, 0, 1), found: new Map() }
    walks.set(state, way)
    const { states, found } = way
    let target = DEAD
    let list: number[] = []
    let node = way.node
    try {
      for (let left = AT_ONCE; node < nodes; left--) {
        if (left === 0) {
          noteWork()
          checkTurn()
          left = AT_ONCE
        }
        const level = depth[node]
        const next = machine.step(states[level - 1], byte[node])
        if (next === DEAD) {
          node = after[node]
          continue
        }
        states[level] = next
        const from = first[node]
        const to = first[node + 1]
        if (to > from) {
          if (next !== target) {
            const known = found.get(next)
            list = known ?? []
            if (known === undefined) found.set(next, list)
            target = next
          }
          for (let i = from; i < to; i++) list.push(tokens[i])
        }
        node++
      }
    } finally {
      way.node = node
    }
    const groups = groupsOf(state, found)
    walks.delete(state)
    noteWork()
    return groups
  }

  function groupsOf(state: number, found: ReadonlyMap<number, number[]>): Group[] {
    const groups: Group[] = []
    for (const [to, list] of found) {
      if (distance(to) === Number.POSITIVE_INFINITY) continue
      groups.push({
        target: to,
        tokens: list.length > words ? bitmap(list) : Int32Array.from(list),
        count: list.length,
      })
    }
    if (machine.accepts(state)) groups.push(end)
    return groups.sort((a, b) => b.count - a.count || a.target - b.target)
  }

  function bitmap(list: readonly number[]): Uint32Array {
    const bits = new Uint32Array(words)
    for (const token of list) bits[token >>> 5] |= 1 << (token & 31)
    return bits
  }

  return {
    vocabulary,
    start: machine.start,
    next(state, token) {
      if (eos.has(token)) return state === ENDED || machine.accepts(state) ? ENDED : DEAD
      const bytes = vocabulary.bytes(token)
      if (state === ENDED || bytes === undefined || bytes.length === 0) return DEAD
      let at = state
      for (let i = 0; i < bytes.length && at !== DEAD; i++) at = machine.step(at, bytes[i])
      return at
    },
    distance,
    spelled,
    accepts: (state) => state === ENDED || machine.accepts(state),
    groups(state) {
      if (state === ENDED) return [end]
      const known = rows.get(state)
      if (known !== undefined) return known
      const groups = walk(state)
      if (cached > LIMITS.cache) {
        rows.clear()
        cached = 0
      }
      rows.set(state, groups)
      for (const group of groups) cached += group.tokens.byteLength + 100
      return groups
    },
  }
}
