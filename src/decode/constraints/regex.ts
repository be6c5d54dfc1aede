// Regular expressions as ECMAScript writes them, with the flag `u`, as far as they are regular.
import { type AST, RegExpParser, RegExpSyntaxError } from '@eslint-community/regexpp'
import { UserError } from '../../core/types.ts'
import {
  ANY_CHARACTER,
  both,
  charClass,
  choice,
  complement,
  type Expression,
  empty,
  except,
  normalize,
  nothing,
  repeat,
  sequence,
} from './expression.ts'
import { LIMITS, tooLarge } from './limits.ts'

export interface RegexOptions {
  /** `whole`: the text from its start to its end; `search`: as RegExp.test and `pattern` of JSON Schema, anywhere in it. */
  match: 'whole' | 'search'
  /** How a character of the text is written, such as with escapes in a JSON string. Default: as it is. */
  character?: (ranges: readonly number[]) => Expression
}

/**
 * What a pattern matches. `^` and `$` may stand at the start and the end of a top-level alternative; lookahead anywhere but
 * in what repeats. Throws UserError naming the place for what is no valid pattern, and for lookbehind, backreferences and
 * word boundaries.
 */
export function parseRegex(source: string, { match, character = charClass }: RegexOptions): Expression {
  if (source.length > LIMITS.source) tooLarge(`the regular expression has more than ${LIMITS.source} characters`)
  checkNesting(source)
  const fail = (node: { start: number; raw: string }, what: string): never => {
    throw new UserError(`constraint: regular expression at ${node.start}: ${what}: ${excerpt(node.raw)}`)
  }
  let lookaheads = 0
  const anything = repeat(character(ANY_CHARACTER), 0, Number.POSITIVE_INFINITY)

  function alternatives(nodes: readonly AST.Alternative[]): Expression {
    return choice(...nodes.map(({ elements }) => sequence(...elements.map(element))))
  }

  function element(node: AST.Element): Expression {
    switch (node.type) {
      case 'Character':
        return character(normalize([node.value, node.value]))
      case 'CharacterSet':
      case 'CharacterClass':
      case 'ExpressionCharacterClass':
        return characterSet(node)
      case 'Group':
        if (node.modifiers) fail(node, 'modifiers are not supported')
        return alternatives(node.alternatives)
      case 'CapturingGroup':
        return alternatives(node.alternatives)
      case 'Quantifier':
        return quantified(node)
      case 'Backreference':
        return fail(node, 'backreferences are not regular')
      case 'Assertion':
        if (node.kind === 'word') return fail(node, 'word boundaries are not supported')
        if (node.kind === 'start' || node.kind === 'end')
          return fail(
            node,
            '^ and $ may stand only at the start and the end of the whole expression or its alternatives',
          )
        if (node.kind === 'lookbehind') return fail(node, 'lookbehind is not supported')
        return fail(node, 'lookahead is not supported inside a repetition')
    }
  }

  /** Some elements and then `rest`, up to the end of the text. A lookahead is a condition on all that follows it. */
  function followed(elements: readonly AST.Element[], rest: Expression, atStart: boolean): Expression {
    const at = elements.findIndex(looksAhead)
    if (at === -1) return sequence(...elements.map(element), rest)
    const first = atStart && at === 0
    const behind = followed(elements.slice(at + 1), rest, first && elements[at].type === 'Assertion')
    return sequence(...elements.slice(0, at).map(element), condition(elements[at], behind, first))
  }

  /** An element with a lookahead in it, and then `rest`. */
  function condition(node: AST.Element, rest: Expression, atStart: boolean): Expression {
    if (node.type === 'Assertion' && node.kind === 'lookahead') {
      if (++lookaheads > LIMITS.lookaheads) fail(node, `more than ${LIMITS.lookaheads} lookaheads are not supported`)
      const edges = { before: empty(), after: anything, caret: atStart }
      const seen = choice(...node.alternatives.map((alternative) => edged(alternative, edges)))
      return node.negate ? except(rest, seen) : both(rest, seen)
    }
    if (node.type === 'CapturingGroup' || (node.type === 'Group' && !node.modifiers)) {
      // Each alternative with a lookahead has the rest for itself, the others share it.
      const [conditional, plain] = [true, false].map((wanted) =>
        node.alternatives.filter(({ elements }) => elements.some(looksAhead) === wanted),
      )
      const options = conditional.map(({ elements }) => followed(elements, rest, atStart))
      return choice(...options, ...(plain.length > 0 ? [sequence(alternatives(plain), rest)] : []))
    }
    if (node.type === 'Quantifier' && node.max === 1) {
      const once = condition(node.element, rest, atStart)
      return node.min === 1 ? once : choice(once, rest)
    }
    return element(node)
  }

  interface Edges {
    /** What may precede an alternative that does not begin with `^`, and follow one that does not end with `$`. */
    before: Expression
    after: Expression
    /** Whether `^` may stand there. */
    caret: boolean
  }

  /** An alternative up to the end of the text. */
  function edged({ elements }: AST.Alternative, { before, after, caret }: Edges): Expression {
    let from = 0
    let to = elements.length
    const edge = (node: AST.Element | undefined, kind: string) => node?.type === 'Assertion' && node.kind === kind
    while (caret && from < to && edge(elements[from], 'start')) from++
    while (to > from && edge(elements[to - 1], 'end')) to--
    const free = from === 0 ? before : empty()
    const rest = to === elements.length ? after : empty()
    return sequence(free, followed(elements.slice(from, to), rest, caret && free === empty()))
  }

  function quantified(node: AST.Quantifier): Expression {
    const { min, max } = node
    if (Math.max(min, Number.isFinite(max) ? max : 0) > LIMITS.repeat)
      fail(node, `repeats more than ${LIMITS.repeat} times`)
    return repeat(element(node.element), min, max)
  }

  function characterSet(node: AST.CharacterSet | AST.CharacterClass | AST.ExpressionCharacterClass): Expression {
    return character(normalize(rangesOf(node)))
  }

  function rangesOf(
    node: AST.CharacterSet | AST.CharacterClass | AST.ExpressionCharacterClass | AST.CharacterClassElement,
  ): readonly number[] {
    switch (node.type) {
      case 'Character':
        return [node.value, node.value]
      case 'CharacterClassRange':
        return [node.min.value, node.max.value]
      case 'CharacterClass': {
        const ranges = normalize((node.elements as AST.CharacterClassElement[]).flatMap((part) => [...rangesOf(part)]))
        return node.negate ? complement(ranges) : ranges
      }
      case 'CharacterSet': {
        if (node.kind === 'property') return property(node)
        if (node.kind === 'any') return complement([0x0a, 0x0a, 0x0d, 0x0d, 0x2028, 0x2029])
        const ranges = SETS[node.kind]
        return node.negate ? complement(ranges) : ranges
      }
      default:
        return fail(node, 'is not supported')
    }
  }

  function property(node: AST.CharacterSet & { kind: 'property' }): readonly number[] {
    const known = properties.get(node.raw)
    if (known !== undefined) return known
    const found: number[] = []
    for (const { 0: run, index } of everything().matchAll(new RegExp(`${node.raw}+`, 'gu')))
      found.push(codeAt(index), codeAt(index + run.length) - 1)
    const ranges = normalize(found)
    properties.set(node.raw, ranges)
    return ranges
  }

  const parser = new RegExpParser({ ecmaVersion: 2025 })
  let pattern: AST.Pattern
  try {
    pattern = parser.parsePattern(source, 0, source.length, { unicode: true })
  } catch (error) {
    if (!(error instanceof RegExpSyntaxError)) throw error
    throw new UserError(`constraint: ${error.message} (at ${error.index})`)
  }
  if (pattern.alternatives.length === 0) return nothing
  const open = match === 'search' ? anything : empty()
  return choice(...pattern.alternatives.map((each) => edged(each, { before: open, after: open, caret: true })))
}

/** Whether there is a lookahead in an element. */
function looksAhead(node: AST.Element): boolean {
  if (node.type === 'Assertion') return node.kind === 'lookahead'
  if (node.type === 'Quantifier') return looksAhead(node.element)
  if (node.type !== 'Group' && node.type !== 'CapturingGroup') return false
  return node.alternatives.some(({ elements }) => elements.some(looksAhead))
}

/** \d, \s and \w without the flag `i`. */
const SETS = {
  digit: [0x30, 0x39],
  space: normalize([
    0x09, 0x0d, 0x20, 0x20, 0xa0, 0xa0, 0x1680, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029, 0x202f, 0x202f, 0x205f, 0x205f,
    0x3000, 0x3000, 0xfeff, 0xfeff,
  ]),
  word: [0x30, 0x39, 0x41, 0x5a, 0x5f, 0x5f, 0x61, 0x7a],
} satisfies Record<string, readonly number[]>

/** Code points of \p{...}, found by asking the JavaScript engine. */
const properties = new Map<string, readonly number[]>()

let characters: string | undefined

/** All characters in order. */
function everything(): string {
  if (characters === undefined) {
    const parts: string[] = []
    for (let i = 0; i < ANY_CHARACTER.length; i += 2)
      for (let code = ANY_CHARACTER[i]; code <= ANY_CHARACTER[i + 1]; code++) parts.push(String.fromCodePoint(code))
    characters = parts.join('')
  }
  return characters
}

/** The code point at an index of `everything`: it leaves out 0x800 surrogates, and from 0x10000 on takes two units each. */
function codeAt(index: number): number {
  if (index < 0xd800) return index
  const code = index + 0x800
  return code <= 0x10000 ? code : 0x10000 + (code - 0x10000) / 2
}

/** The parser is recursive: too deep a nesting would exhaust the stack. */
function checkNesting(source: string): void {
  let depth = 0
  for (let i = 0; i < source.length; i++) {
    if (source[i] === '\\') i++
    else if (source[i] === '(' && ++depth > LIMITS.nesting)
      throw new UserError(`constraint: regular expression at ${i}: groups are nested more than ${LIMITS.nesting} deep`)
    else if (source[i] === ')') depth--
  }
}

const excerpt = (raw: string): string => (raw.length > 40 ? `${raw.slice(0, 40)}…` : raw)
