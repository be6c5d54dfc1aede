// GBNF, the grammars of llama.cpp: `name ::= alternatives`, with literals, character classes, groups and repetitions.
import { UserError } from '../../core/types.ts'
import {
  ANY_CHARACTER,
  charClass,
  choice,
  complement,
  type Expression,
  empty,
  type Grammar,
  normalize,
  repeat,
  rule,
  sequence,
  text,
} from './expression.ts'
import { LIMITS, tooLarge } from './limits.ts'

/** Throws UserError naming line and column of what is wrong. The rule `root` is the text. */
export function parseGrammar(source: string): Grammar {
  if (source.length > LIMITS.source) tooLarge(`the grammar has more than ${LIMITS.source} characters`)
  const rules = new Map<string, Expression>()
  const called = new Map<string, number>()
  let at = 0
  let depth = 0

  function fail(what: string, where = at): never {
    const before = source.slice(0, where).split('\n')
    throw new UserError(
      `constraint: grammar, line ${before.length}, column ${before[before.length - 1].length + 1}: ${what}`,
    )
  }

  /** Skips blanks and comments; line ends only where a rule goes on behind them. */
  function skip(lines: boolean): void {
    for (;;) {
      const char = source[at]
      if (char === ' ' || char === '\t' || (lines && (char === '\n' || char === '\r'))) at++
      else if (char === '#') while (at < source.length && source[at] !== '\n') at++
      else return
    }
  }

  function take(token: string): boolean {
    if (!source.startsWith(token, at)) return false
    at += token.length
    return true
  }

  const name = /[a-zA-Z_][a-zA-Z0-9_-]*/y
  function takeName(): string | undefined {
    name.lastIndex = at
    const found = name.exec(source)?.[0]
    if (found !== undefined) at += found.length
    return found
  }

  /** One character of a literal or a class, escapes resolved. */
  function character(): number {
    const code = source.codePointAt(at)
    if (code === undefined) fail('the end comes too early')
    at += code > 0xffff ? 2 : 1
    if (code !== 0x5c) return code
    const kind = source[at++]
    const simple = { n: 10, r: 13, t: 9, '\\': 0x5c, '"': 0x22, '[': 0x5b, ']': 0x5d, '-': 0x2d, '^': 0x5e }[kind]
    if (simple !== undefined) return simple
    const length = { x: 2, u: 4, U: 8 }[kind]
    if (length === undefined) fail(`unknown escape \\${kind ?? ''}`, at - 2)
    const digits = source.slice(at, at + length)
    const value = Number.parseInt(digits, 16)
    if (
      !/^[0-9a-fA-F]+$/.test(digits) ||
      digits.length < length ||
      value > 0x10ffff ||
      (value >= 0xd800 && value < 0xe000)
    )
      fail(`\\${kind} needs ${length} hexadecimal digits of a character`)
    at += length
    return value
  }

  function literal(): Expression {
    let value = ''
    while (!take('"')) {
      if (at >= source.length || source[at] === '\n') fail('the literal does not end')
      const code = character()
      if (code >= 0xd800 && code < 0xe000) fail('a lone surrogate is no character')
      value += String.fromCodePoint(code)
    }
    return text(value)
  }

  function characters(): Expression {
    const negated = take('^')
    const ranges: number[] = []
    while (!take(']')) {
      if (at >= source.length || source[at] === '\n') fail('the character class does not end')
      const first = character()
      let last = first
      if (source[at] === '-' && source[at + 1] !== ']') {
        at++
        last = character()
        if (last < first) fail('the range is in the wrong order')
      }
      ranges.push(first, last)
    }
    const set = normalize(ranges)
    return charClass(negated ? complement(set) : set)
  }

  function bound(): number | undefined {
    const digits = /^[0-9]{1,9}/.exec(source.slice(at, at + 9))?.[0]
    if (digits === undefined) return undefined
    at += digits.length
    return Number(digits)
  }

  function repeated(body: Expression): Expression {
    let result = body
    for (let times = 0; ; times++) {
      skip(false)
      if (times > LIMITS.nesting) fail(`more than ${LIMITS.nesting} repetitions of one thing`)
      if (take('*')) result = repeat(result, 0, Number.POSITIVE_INFINITY)
      else if (take('+')) result = repeat(result, 1, Number.POSITIVE_INFINITY)
      else if (take('?')) result = repeat(result, 0, 1)
      else if (take('{')) {
        skip(false)
        const min = bound()
        skip(false)
        let max = min
        if (take(',')) {
          skip(false)
          max = bound() ?? Number.POSITIVE_INFINITY
          skip(false)
        }
        if (!take('}') || (min === undefined && max === undefined)) fail('expected {m}, {m,} or {m,n}')
        if ((min ?? 0) > max!) fail('the repetition ends before it begins')
        if (Math.max(min ?? 0, Number.isFinite(max) ? max! : 0) > LIMITS.repeat)
          fail(`repeats more than ${LIMITS.repeat} times`)
        result = repeat(result, min ?? 0, max!)
      } else return result
    }
  }

  function alternatives(nested: boolean): Expression {
    if (++depth > LIMITS.nesting) fail(`groups are nested more than ${LIMITS.nesting} deep`)
    const options: Expression[] = []
    do {
      skip(true)
      options.push(parts(nested))
      skip(nested)
    } while (take('|'))
    depth--
    return choice(...options)
  }

  function parts(nested: boolean): Expression {
    const found: Expression[] = []
    for (;;) {
      skip(nested)
      const start = at
      let part: Expression
      if (take('"')) part = literal()
      else if (take('[')) part = characters()
      else if (take('.')) part = charClass(ANY_CHARACTER)
      else if (take('(')) {
        part = alternatives(true)
        if (!take(')')) fail('expected )')
      } else {
        const callee = takeName()
        if (callee === undefined) break
        // The name of the next rule, not a call.
        const behind = at
        skip(true)
        const definition = source.startsWith('::=', at)
        at = definition ? start : behind
        if (definition) break
        called.set(callee, start)
        part = rule(callee)
      }
      found.push(repeated(part))
    }
    return found.length === 0 ? empty() : sequence(...found)
  }

  for (skip(true); at < source.length; skip(true)) {
    const start = at
    const defined = takeName()
    if (defined === undefined) fail('expected the name of a rule')
    skip(true)
    if (!take('::=')) fail('expected ::=')
    if (rules.has(defined)) fail(`the rule ${defined} is defined twice`, start)
    rules.set(defined, alternatives(false))
    if (at < source.length && source[at] !== '\n' && source[at] !== '\r') fail('expected the end of the line')
  }
  for (const [missing, where] of called) if (!rules.has(missing)) fail(`there is no rule ${missing}`, where)
  if (!rules.has('root')) throw new UserError('constraint: the grammar has no rule root')
  return { root: rule('root'), rules }
}
