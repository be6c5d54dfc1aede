// Runs a program over bytes as a deterministic automaton whose states are made when they are first reached.
// Knows nothing about tokens.
import { UserError } from '../../core/types.ts'
import { type Budget, createBudget, LIMITS, tooLarge } from './limits.ts'
import {
  byteClasses,
  createProgram,
  dataOf,
  Kind,
  type Loop,
  type Node,
  type Product,
  type Program,
  RETURN,
} from './network.ts'
import { checkTurn, noteWork } from './turns.ts'

/** From here no text of the language can be reached any more, or only one beyond the limits. */
export const DEAD = 0
const UNKNOWN = -1

export interface Machine {
  /** The first state. Throws UserError where it has too many readings. */
  start(): number
  /** The state after a byte. */
  step(state: number, byte: number): number
  /** Whether the text so far is in the language. */
  accepts(state: number): boolean
  /** Cost in bytes of the cheapest way to a text of the language. */
  cost(state: number): number
  /** The first byte of that way; -1 where the text is complete. */
  nextByte(state: number): number
  /** Whether a limit made states DEAD that are not. */
  limited(): boolean
  /** Whether it has come near its limits, so that a fresh one should take over. */
  worn(): boolean
}

/** A byte's price: what the vocabulary cannot write byte by byte is a last resort. */
const RARE = 1000

/** For each node the cheapest way to the RETURN that ends it: its cost, and for bytes nodes its first byte. */
export interface Ways {
  costs: Float64Array
  choices: Int16Array
}

/** Places that are looked at before the turn may end. */
const AT_ONCE = 256

/** A state that is being made: its places so far, those to be looked at, and those found. */
interface Unfinished {
  /** Of the readings of the state before, those that were looked at. */
  read: number
  seen: Set<number>
  places: number[]
  found: number[]
  accepts: boolean
}

/**
 * A machine for a program, with the ways of `shortest`. Throws UserError where no text is in the language. What it does takes
 * time where states are made: in turns, then (`inTurns`), as all that uses it.
 */
export function createMachine(
  program: Program,
  { costs, choices }: Ways,
  budget: Budget = createBudget(LIMITS.work),
): Machine {
  const { kinds, first, data, loops, classOf, classes } = program

  // What is open around a place in the text: cell 0 is nothing. A cell of a rule continues at a node, one of a repetition
  // counts the bodies before the present one.
  const parents = [0]
  const continues = [0]
  const counts = [UNKNOWN]
  const depths = [0]
  const closing = [0]
  const cells = new Map<number, Map<number, number>>()

  /** The cell on top of `parent`; UNKNOWN where too much is open. `count` is UNKNOWN for a rule. */
  function cell(parent: number, target: number, count: number): number {
    const key = parent * (kinds.length + loops.length) + (count === UNKNOWN ? target : kinds.length + target)
    let siblings = cells.get(key)
    if (siblings === undefined) {
      siblings = new Map()
      cells.set(key, siblings)
    }
    const known = siblings.get(count)
    if (known !== undefined) return known
    if (depths[parent] >= LIMITS.depth) {
      limited = true
      return UNKNOWN
    }
    const id = parents.length
    parents.push(parent)
    continues.push(target)
    counts.push(count)
    depths.push(depths[parent] + 1)
    const { body, min, next } = count === UNKNOWN ? { body: 0, min: 0, next: target } : loopOf(program, target)
    closing.push(Math.max(0, min - count - 1) * (count === UNKNOWN ? 0 : costs[body]) + costs[next] + closing[parent])
    siblings.set(count, id)
    return id
  }

  // States. A reading is a bytes node with the cell around it, as one number.
  const cellBase = 2 ** 26
  const readings: number[][] = [[]]
  const accepting: boolean[] = [false]
  const stateCosts: number[] = [Number.POSITIVE_INFINITY]
  const nextBytes: number[] = [UNKNOWN]
  let transitions = new Int32Array(classes * 64).fill(UNKNOWN)
  transitions.fill(DEAD, 0, classes)
  const states = new Map<string | number, number>()
  let limited = false

  function limit(): number {
    limited = true
    return DEAD
  }

  /** The state of all that is reached without a byte from the places of `state`, which are made by then. */
  function closure(state: Unfinished): number {
    const { seen, places, found } = state
    const visit = (node: number, around: number) => {
      if (around === UNKNOWN || costs[node] === Number.POSITIVE_INFINITY) return
      const place = node * cellBase + around
      if (seen.has(place)) return
      seen.add(place)
      places.push(place)
    }
    for (let left = AT_ONCE; places.length > 0; left--) {
      if (left === 0) {
        noteWork()
        checkTurn()
        left = AT_ONCE
      }
      const place = places.pop() as number
      if (--budget.work < 0 || seen.size > LIMITS.places) return limit()
      const id = Math.floor(place / cellBase)
      const around = place - id * cellBase
      const kind = kinds[id]
      const from = first[id]
      if (kind === Kind.bytes) {
        found.push(place)
        if (found.length > LIMITS.readings) return limit()
      } else if (kind === Kind.split) {
        for (let i = from; i < first[id + 1]; i++) visit(data[i], around)
      } else if (kind === Kind.call) {
        visit(data[from], cell(around, data[from + 1], UNKNOWN))
      } else if (kind === Kind.loop) {
        visit(loopOf(program, data[from]).body, cell(around, data[from], 0))
      } else if (around === 0) {
        state.accepts = true
      } else if (counts[around] === UNKNOWN) {
        visit(continues[around], parents[around])
      } else {
        const { body, min, max, next } = loopOf(program, continues[around])
        const done = counts[around] + 1
        if (done >= min) visit(next, parents[around])
        if (done < max)
          visit(
            body,
            cell(parents[around], continues[around], max === Number.POSITIVE_INFINITY ? Math.min(done, min) : done),
          )
      }
    }
    if (found.length === 0 && !state.accepts) return DEAD
    return intern(found, state.accepts)
  }

  function intern(found: number[], accepts: boolean): number {
    found.sort((a, b) => a - b)
    const key = found.length === 1 && !accepts ? found[0] : `${accepts ? '+' : ''}${found.join()}`
    const known = states.get(key)
    if (known !== undefined) return known
    if (readings.length >= LIMITS.states || parents.length >= cellBase) return limit()
    const id = readings.length
    states.set(key, id)
    readings.push(found)
    accepting.push(accepts)
    let cost = accepts ? 0 : Number.POSITIVE_INFINITY
    let next = UNKNOWN
    for (const place of found) {
      const node = Math.floor(place / cellBase)
      const total = costs[node] + closing[place - node * cellBase]
      if (total < cost) {
        cost = total
        next = choices[node]
      }
    }
    stateCosts.push(cost)
    nextBytes.push(next)
    if ((id + 1) * classes > transitions.length) {
      const larger = new Int32Array(transitions.length * 2).fill(UNKNOWN)
      larger.set(transitions)
      transitions = larger
    }
    return id
  }

  /** Adds the places to which a byte leads from a state. */
  function read(state: number, byte: number, to: Unfinished): void {
    const from = readings[state]
    for (let left = AT_ONCE; to.read < from.length; to.read++, left--) {
      if (left === 0) {
        noteWork()
        checkTurn()
        left = AT_ONCE
      }
      const place = from[to.read]
      const id = Math.floor(place / cellBase)
      const end = first[id + 1]
      budget.work -= (end - first[id]) / 3
      for (let i = first[id]; i < end; i += 3) {
        if (byte < data[i] || byte > data[i + 1] || costs[data[i + 2]] === Number.POSITIVE_INFINITY) continue
        const next = data[i + 2] * cellBase + (place - id * cellBase)
        if (to.seen.has(next)) continue
        to.seen.add(next)
        to.places.push(next)
      }
    }
  }

  /** States that are being made, by the transition that leads to them. */
  const unfinished = new Map<number, Unfinished>()
  /** The state at a transition. Work that is broken off goes on with the next call. */
  function finished(at: number, begin: () => Unfinished, go: (state: Unfinished) => void): number {
    checkTurn()
    const state = unfinished.get(at) ?? begin()
    unfinished.set(at, state)
    go(state)
    const next = closure(state)
    unfinished.delete(at)
    noteWork()
    return next
  }

  if (costs[program.start] === Number.POSITIVE_INFINITY)
    throw new UserError('constraint: no text satisfies it; conditions contradict each other or recursion never ends')
  let start: number | undefined
  const beginning = (places: number[]): Unfinished => ({
    ...{ read: 0, places, seen: new Set(places), found: [], accepts: false },
  })

  return {
    start() {
      start ??= finished(
        UNKNOWN,
        () => beginning([program.start * cellBase]),
        () => {},
      )
      return start === DEAD ? tooLarge('has too many ways to begin') : start
    },
    step(state, byte) {
      const at = state * classes + classOf[byte]
      const known = transitions[at]
      if (known !== UNKNOWN) return known
      const next =
        budget.work < 0
          ? limit()
          : finished(
              at,
              () => beginning([]),
              (to) => read(state, byte, to),
            )
      transitions[at] = next
      return next
    },
    accepts: (state) => accepting[state],
    cost: (state) => stateCosts[state],
    nextByte: (state) => nextBytes[state],
    limited: () => limited,
    worn: () => readings.length > LIMITS.states / 2 || budget.work < LIMITS.work / 2,
  }
}

function loopOf({ loops }: Program, loop: number): Loop {
  const at = 4 * loop
  return { body: loops[at], min: loops[at + 1], max: loops[at + 2], next: loops[at + 3] }
}

/**
 * The ways of a program's nodes. `usable[byte]` is 1 for bytes that may be used one at a time on the cheapest way. Knuth's
 * generalisation of Dijkstra's algorithm to grammars, as a fixed point.
 */
export function shortest(program: Program, usable: Uint8Array): Ways {
  const { kinds, first, data } = program
  const prices = Float64Array.from(usable, (one) => (one === 1 ? 1 : RARE))
  const costs = new Float64Array(kinds.length).fill(Number.POSITIVE_INFINITY)
  const choices = new Int16Array(kinds.length).fill(UNKNOWN)
  costs[RETURN] = 0
  // Who must be looked at again when a node becomes cheaper.
  const users: number[][] = Array.from(kinds, () => [])
  for (const [id, kind] of kinds.entries()) {
    if (kind === Kind.loop) {
      const { body, next } = loopOf(program, data[first[id]])
      users[body].push(id)
      users[next].push(id)
    } else
      for (let i = first[id] + (kind === Kind.bytes ? 2 : 0); i < first[id + 1]; i += kind === Kind.bytes ? 3 : 1)
        users[data[i]].push(id)
  }
  const bestByte = cheapestByte(prices)
  const value = (id: number): number => {
    const kind = kinds[id]
    const from = first[id]
    if (kind === Kind.return) return 0
    if (kind === Kind.split)
      return dataOf(program, id).reduce((best, target) => Math.min(best, costs[target]), Number.POSITIVE_INFINITY)
    if (kind === Kind.call) return costs[data[from]] + costs[data[from + 1]]
    if (kind === Kind.loop) {
      const { body, min, next } = loopOf(program, data[from])
      return min * costs[body] + costs[next]
    }
    let best = Number.POSITIVE_INFINITY
    for (let i = from; i < first[id + 1]; i += 3) {
      const byte = bestByte(data[i], data[i + 1])
      const cost = prices[byte] + costs[data[i + 2]]
      if (cost < best) {
        best = cost
        choices[id] = byte
      }
    }
    return best
  }
  // A queue in order of cost: a node whose cost is taken from it never becomes cheaper.
  const queue = createQueue()
  queue.push(0, RETURN)
  const done = new Uint8Array(kinds.length)
  for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
    if (done[id] === 1) continue
    done[id] = 1
    for (const user of users[id]) {
      if (done[user] === 1) continue
      const cost = value(user)
      if (cost < costs[user]) {
        costs[user] = cost
        queue.push(cost, user)
      }
    }
  }
  return { costs, choices }
}

/** A byte of a range with the least price; of those a letter or digit if there is one. */
function cheapestByte(prices: Float64Array): (low: number, high: number) => number {
  const rank = prices.map((price, byte) => 2 * price + (/[a-z0-9]/i.test(String.fromCharCode(byte)) ? 0 : 1))
  const known = new Map<number, number>()
  return (low, high) => {
    const key = low * 256 + high
    let best = known.get(key)
    if (best === undefined) {
      best = low
      for (let byte = low + 1; byte <= high; byte++) if (rank[byte] < rank[best]) best = byte
      known.set(key, best)
    }
    return best
  }
}

/** A binary heap. */
function createQueue() {
  const heap: [number, number][] = []
  return {
    push(cost: number, id: number) {
      let i = heap.length
      heap.push([cost, id])
      while (i > 0) {
        const parent = (i - 1) >> 1
        if (heap[parent][0] <= heap[i][0]) break
        ;[heap[parent], heap[i]] = [heap[i], heap[parent]]
        i = parent
      }
    },
    pop(): number | undefined {
      const top = heap[0]
      const last = heap.pop()
      if (top === undefined || last === undefined) return undefined
      if (heap.length > 0) {
        heap[0] = last
        for (let i = 0; ; ) {
          let least = i
          for (const child of [2 * i + 1, 2 * i + 2])
            if (child < heap.length && heap[child][0] < heap[least][0]) least = child
          if (least === i) break
          ;[heap[least], heap[i]] = [heap[i], heap[least]]
          i = least
        }
      }
      return top[1]
    },
  }
}

/** See `Product`; gives splits and bytes alone. Throws UserError where it has too many states. */
export const product: Product = (left, right, negated, budget) => {
  const usable = new Uint8Array(256).fill(1)
  const a = createMachine(left, shortest(left, usable), budget)
  const b = createMachine(right, shortest(right, usable), budget)
  const rangesOf = (program: Program) =>
    [...program.kinds.keys()].filter((id) => program.kinds[id] === Kind.bytes).map((id) => dataOf(program, id))
  const { classOf } = byteClasses([...rangesOf(left), ...rangesOf(right)])
  const nodes: Node[] = [{ kind: Kind.return, data: [] }]
  const ids = new Map<number, number>()
  const pending: [number, number, number][] = []
  const base = LIMITS.states + 1
  function nodeOf(x: number, y: number): number {
    const key = x * base + y
    let id = ids.get(key)
    if (id === undefined) {
      if (ids.size >= LIMITS.product) tooLarge(`combines two conditions in more than ${LIMITS.product} ways`)
      id = nodes.length
      ids.set(key, id)
      // A place where the text may end goes on or returns.
      const ends = a.accepts(x) && b.accepts(y) !== negated
      if (ends) nodes.push({ kind: Kind.split, data: [RETURN, id + 1] })
      const bytes = nodes.length
      nodes.push({ kind: Kind.bytes, data: [] })
      pending.push([x, y, bytes])
    }
    return id
  }
  const start = nodeOf(a.start(), b.start())
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [x, y, id] = next
    for (let first = 0; first < 256; ) {
      let last = first
      while (last < 255 && classOf[last + 1] === classOf[first]) last++
      const nextA = a.step(x, first)
      const nextB = b.step(y, first)
      if (nextA !== DEAD && (negated || nextB !== DEAD)) {
        const { data } = nodes[id]
        const target = nodeOf(nextA, nextB)
        if (data[data.length - 1] === target && data[data.length - 2] === first - 1) data[data.length - 2] = last
        else data.push(first, last, target)
      }
      first = last + 1
    }
  }
  if (a.limited() || b.limited()) tooLarge('combines two conditions in too many ways')
  return createProgram(nodes, [], start)
}
