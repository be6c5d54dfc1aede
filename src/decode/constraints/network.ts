// Compiles expressions to a recursive transition network over bytes: the nodes that an automaton walks through.
// Knows nothing about tokens or about running it.
import { UserError } from '../../core/types.ts'
import type { Expression, Grammar } from './expression.ts'
import { type Budget, LIMITS, tooLarge } from './limits.ts'
import { type ByteRanges, utf8Ranges } from './utf8.ts'

/** The end of a rule or of a repetition's body; of everything where none is open. */
export const RETURN = 0

export const Kind = {
  return: 0,
  /** Goes on at each of `data` without a byte. */
  split: 1,
  /** Triples of `data`: a byte from the first to the second leads to the third. */
  bytes: 2,
  /** `data`: the node at which a rule starts, and the node after it. */
  call: 3,
  /** `data`: index into `loops`. */
  loop: 4,
} as const

export interface Node {
  kind: (typeof Kind)[keyof typeof Kind]
  data: number[]
}

/** A counted repetition of what starts at `body` and ends at RETURN. */
export interface Loop {
  body: number
  min: number
  max: number
  next: number
}

/** Plain arrays, so that it passes between threads without a copy. */
export interface Program {
  /** Kind of each node; its data are `data[first[i]..first[i + 1]]`. */
  kinds: Uint8Array
  first: Int32Array
  data: Int32Array
  /** Four numbers for each loop: body, min, max, next. */
  loops: Float64Array
  start: number
  /** Class of each byte: those of one class are never distinguished. */
  classOf: Uint8Array
  classes: number
}

export function createProgram(nodes: readonly Node[], loops: readonly Loop[], start: number): Program {
  const first = new Int32Array(nodes.length + 1)
  for (const [id, { data }] of nodes.entries()) first[id + 1] = first[id] + data.length
  const data = new Int32Array(first[nodes.length])
  for (const [id, node] of nodes.entries()) data.set(node.data, first[id])
  return {
    ...{ kinds: Uint8Array.from(nodes, ({ kind }) => kind), first, data, start },
    loops: Float64Array.from(loops.flatMap(({ body, min, max, next }) => [body, min, max, next])),
    ...byteClasses(nodes.flatMap((node) => (node.kind === Kind.bytes ? [node.data] : []))),
  }
}

/** The data of a node. */
export const dataOf = ({ first, data }: Program, node: number): Int32Array =>
  data.subarray(first[node], first[node + 1])

/** Repetitions up to this many nodes are written out; larger ones are counted. */
const INLINE = 64

/** Makes one program of two regular ones: the texts of `left` that also are (`negated`: are not) texts of `right`. */
export type Product = (left: Program, right: Program, negated: boolean, budget: Budget) => Program

/** Compiles a grammar. Throws UserError where it is too large, names a rule that does not exist, or is left-recursive. */
export function compile(grammar: Grammar, product: Product, budget: Budget): Program {
  if (grammar.rules.size > LIMITS.rules) tooLarge(`has more than ${LIMITS.rules} rules`)
  checkLeftRecursion(grammar)
  const nodes: Node[] = [{ kind: Kind.return, data: [] }]
  const loops: Loop[] = []
  const starts = new Map<string, number>()
  const pending: string[] = []
  const sizes = new Map<Expression, number>()

  function node(kind: Node['kind'], data: number[]): number {
    if (nodes.length >= LIMITS.nodes) tooLarge(`needs more than ${LIMITS.nodes} nodes`)
    nodes.push({ kind, data })
    return nodes.length - 1
  }

  /** About how many nodes an expression becomes. */
  function size(expression: Expression): number {
    const known = sizes.get(expression)
    if (known !== undefined) return known
    const sum = (parts: readonly Expression[]) => parts.reduce((total, part) => total + size(part), 1)
    const { type } = expression
    const result =
      type === 'text'
        ? expression.text.length
        : type === 'class'
          ? 1 + expression.ranges.length
          : type === 'automaton'
            ? expression.states.length * 2
            : type === 'sequence'
              ? sum(expression.parts)
              : type === 'choice'
                ? sum(expression.options)
                : type === 'repeat'
                  ? 1 + size(expression.body) * (size(expression.body) * expression.max <= INLINE ? expression.max : 1)
                  : 1
    sizes.set(expression, result)
    return result
  }

  function ruleStart(name: string): number {
    let start = starts.get(name)
    if (start === undefined) {
      start = node(Kind.split, [])
      starts.set(name, start)
      pending.push(name)
    }
    return start
  }

  /** The node from which the expression leads to `next`. */
  function build(expression: Expression, next: number): number {
    switch (expression.type) {
      case 'text':
        return utf8
          .encode(expression.text)
          .reduceRight((following, byte) => node(Kind.bytes, [byte, byte, following]), next)
      case 'class':
        return buildClass(expression.ranges, next)
      case 'sequence':
        return expression.parts.reduceRight((following, part) => build(part, following), next)
      case 'choice':
        return node(
          Kind.split,
          expression.options.map((option) => build(option, next)),
        )
      case 'repeat':
        return buildRepeat(expression, next)
      case 'rule': {
        const start = ruleStart(expression.name)
        // What ends with a rule need not come back from it, so that lists written as recursion need no stack.
        return next === RETURN ? start : node(Kind.call, [start, next])
      }
      case 'automaton': {
        const { states } = expression
        const ids = states.map(() => node(Kind.bytes, []))
        const entries = states.map(({ accepts }, i) => (accepts ? node(Kind.split, [ids[i], next]) : ids[i]))
        for (const [i, { edges }] of states.entries())
          nodes[ids[i]].data = edges.map((value, j) => (j % 3 === 2 ? entries[value] : value))
        return entries[0]
      }
      case 'product': {
        const part = (side: Expression) => compile({ root: side, rules: new Map() }, product, budget)
        return embed(product(part(expression.left), part(expression.right), expression.negated, budget), next)
      }
    }
  }

  function buildClass(ranges: readonly number[], next: number): number {
    const sequences: ByteRanges[] = []
    for (let i = 0; i < ranges.length; i += 2) sequences.push(...utf8Ranges(ranges[i], ranges[i + 1]))
    const ends = new Map<string, number>()
    /** The node of some sequences' rest; sequences share their ends. */
    function rest(sequence: ByteRanges, at: number): number {
      if (at === sequence.length) return next
      const key = sequence.slice(at).join()
      let start = ends.get(key)
      if (start === undefined) {
        start = node(Kind.bytes, [sequence[at], sequence[at + 1], rest(sequence, at + 2)])
        ends.set(key, start)
      }
      return start
    }
    return node(
      Kind.bytes,
      sequences.flatMap((sequence) => [sequence[0], sequence[1], rest(sequence, 2)]),
    )
  }

  function buildRepeat(expression: Expression & { type: 'repeat' }, next: number): number {
    const { body, min, max } = expression
    if (max === Number.POSITIVE_INFINITY && min <= 1) {
      const again = node(Kind.split, [])
      const start = build(body, again)
      nodes[again].data.push(start, next)
      return min === 1 ? start : again
    }
    if (max < Number.POSITIVE_INFINITY && size(body) * max <= INLINE) {
      let start = next
      for (let i = max; i > 0; i--) {
        start = build(body, start)
        if (i > min) start = node(Kind.split, [start, next])
      }
      return start
    }
    if (Math.max(min, Number.isFinite(max) ? max : 0) > LIMITS.repeat)
      tooLarge(`repeats something more than ${LIMITS.repeat} times`)
    loops.push({ body: RETURN, min: Math.max(1, min), max, next })
    const id = loops.length - 1
    loops[id].body = build(body, RETURN)
    const loop = node(Kind.loop, [id])
    return min === 0 ? node(Kind.split, [loop, next]) : loop
  }

  /** Copies a program without calls and loops. */
  function embed(program: Program, next: number): number {
    const kinds = [...program.kinds] as Node['kind'][]
    const ids = kinds.map((kind, i) => (i === RETURN ? next : node(kind, [])))
    for (const [i, kind] of kinds.entries()) {
      if (i === RETURN) continue
      const data = dataOf(program, i)
      nodes[ids[i]].data = Array.from(data, (value, j) => (kind === Kind.split || j % 3 === 2 ? ids[value] : value))
    }
    return ids[program.start]
  }

  const start = build(grammar.root, RETURN)
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const body = grammar.rules.get(name)
    if (body === undefined) throw new UserError(`constraint: there is no rule ${JSON.stringify(name)}`)
    nodes[ruleStart(name)].data.push(build(body, RETURN))
  }
  return createProgram(nodes, loops, start)
}

const utf8 = new TextEncoder()

/** The coarsest classes of bytes such that every range is a union of them. `ranges`: the data of bytes nodes. */
export function byteClasses(ranges: readonly ArrayLike<number>[]): Pick<Program, 'classOf' | 'classes'> {
  const starts = new Uint8Array(257)
  for (const data of ranges)
    for (let i = 0; i < data.length; i += 3) {
      starts[data[i]] = 1
      starts[data[i + 1] + 1] = 1
    }
  const classOf = new Uint8Array(256)
  let classes = 0
  for (let byte = 0; byte < 256; byte++) {
    if (byte > 0 && starts[byte] === 1) classes++
    classOf[byte] = classes
  }
  return { classOf, classes: classes + 1 }
}

/** A rule that begins with itself would never come to a byte. */
function checkLeftRecursion({ root, rules }: Grammar): void {
  const nullable = new Map<string, boolean>()

  function isNullable(expression: Expression): boolean {
    switch (expression.type) {
      case 'text':
        return expression.text === ''
      case 'class':
        return false
      case 'sequence':
        return expression.parts.every(isNullable)
      case 'choice':
        return expression.options.some(isNullable)
      case 'repeat':
        return expression.min === 0 || isNullable(expression.body)
      case 'rule':
        return nullable.get(expression.name) ?? false
      case 'automaton':
        return expression.states[0].accepts
      case 'product':
        return isNullable(expression.left) && isNullable(expression.right) !== expression.negated
    }
  }
  for (let changed = true; changed; ) {
    changed = false
    for (const [name, body] of rules)
      if (!nullable.get(name) && isNullable(body)) {
        nullable.set(name, true)
        changed = true
      }
  }

  /** Rules that may be called before the first byte. */
  function first(expression: Expression, out: Set<string>): Set<string> {
    if (expression.type === 'rule') out.add(expression.name)
    else if (expression.type === 'choice') for (const option of expression.options) first(option, out)
    else if (expression.type === 'repeat') first(expression.body, out)
    else if (expression.type === 'product') {
      first(expression.left, out)
      first(expression.right, out)
    } else if (expression.type === 'sequence')
      for (const part of expression.parts) {
        first(part, out)
        if (!isNullable(part)) break
      }
    return out
  }

  const done = new Set<string>()
  const open = new Set<string>()
  function visit(names: Iterable<string>): void {
    for (const name of names) {
      if (open.has(name))
        throw new UserError(
          `constraint: the rule ${JSON.stringify(name)} begins with itself; write it as a repetition, or so that something comes first`,
        )
      const body = rules.get(name)
      if (done.has(name) || body === undefined) continue
      open.add(name)
      visit(first(body, new Set()))
      open.delete(name)
      done.add(name)
    }
  }
  visit(first(root, new Set()))
  for (const name of rules.keys()) visit([name])
}
