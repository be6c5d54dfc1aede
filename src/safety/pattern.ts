// Patterns that are matched in linear time (RE2), in a text that may still grow: besides its matches a pattern says where one
// may be under way. Patterns are written as in JavaScript; what RE2 has not (lookaround, backreferences) is refused.
import { type AST, parseRegExpLiteral } from '@eslint-community/regexpp'
import { RE2JS } from 're2js'
import { UserError } from '../core/types.ts'

export interface Pattern {
  /** Matches that begin at `from` or behind it; `accept` may refuse one, or shorten it by returning an earlier end. */
  matches(text: string, from: number, accept?: Accept): { start: number; end: number }[]
  /** The first place at `from` or behind it where a match could be under way; the text's length where none is. */
  open(text: string, from: number): number
}

/** The end of what counts as the match, or undefined. */
export type Accept = (text: string, start: number, end: number) => number | undefined

/** A match is not waited for any longer than this many characters, so that a careless pattern holds up no answer. */
export const MAX_HELD = 1024
const MAX_SOURCE = 2000
/** Instructions of a compiled pattern. */
const MAX_PROGRAM = 20_000

/** Compiles a pattern; `long` for lists of words. Throws UserError that says what is wrong with it. */
export function compilePattern(source: string, { caseSensitive = false, long = false } = {}): Pattern {
  const fail = (reason: string): never => {
    throw new UserError(`pattern ${JSON.stringify(source.slice(0, 80))}: ${reason}`)
  }
  if (!long && source.length > MAX_SOURCE) fail(`longer than ${MAX_SOURCE} characters`)
  let tree: AST.Pattern
  try {
    // A slash ends a literal, and is none of ours.
    tree = parseRegExpLiteral(`/${source.replace(/\\[\s\S]|\//g, (part) => (part === '/' ? '\\/' : part))}/u`).pattern
  } catch (error) {
    return fail(error instanceof Error ? error.message.replace(/^Invalid regular expression: /, '') : String(error))
  }
  const compile = (expression: string, flags = 0): RE2JS => {
    try {
      return RE2JS.compile(expression, flags | (caseSensitive ? 0 : RE2JS.CASE_INSENSITIVE))
    } catch (error) {
      return fail(error instanceof Error ? error.message : String(error))
    }
  }
  const expressions = (): [string, string] => {
    try {
      return [oneOf(tree.alternatives.map(({ elements }) => sequence(elements, false))), beginnings(tree.alternatives)]
    } catch (error) {
      return fail(error instanceof Error ? error.message : String(error))
    }
  }
  const [forwards, backwards] = expressions()
  const whole = compile(forwards)
  const begun = compile(`\\A${backwards}`, RE2JS.LONGEST_MATCH)
  if (whole.programSize() > MAX_PROGRAM || begun.programSize() > MAX_PROGRAM) fail('too large; repeat less')
  if (whole.test('')) fail('matches the empty text')

  return {
    matches(text, from, accept = (_text, _start, end) => end) {
      // The automaton that only says whether there is a match is many times faster than the one that finds it.
      if (!whole.test(text)) return []
      const matcher = whole.matcher(text)
      const found: { start: number; end: number }[] = []
      for (let at = from; at <= text.length && matcher.find(at); ) {
        const start = matcher.start()
        const longest = matcher.end()
        const end = longest > start ? accept(text, start, longest) : undefined
        if (end !== undefined) found.push({ start, end })
        at = end ?? start + 1
      }
      return found
    },
    open(text, from) {
      // Read from the end, the longest beginning of a match is the one that begins first, and reading ends with it. One more
      // character shows what stands before it.
      const tail = text.slice(Math.max(0, from - 1, text.length - MAX_HELD - 1))
      const matcher = begun.matcher([...tail].reverse().join(''))
      return matcher.find(0) ? Math.max(from, text.length - matcher.end()) : text.length
    },
  }
}

/** A word or phrase as a pattern: its characters, with any white space between its words. */
export const quoteWords = (words: string): string =>
  words
    .trim()
    .split(/\s+/)
    .map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'))
    .join('\\s{1,8}')

const oneOf = (parts: readonly string[]) => `(?:${parts.join('|')})`

/** Elements one after the other, or `backwards`, as RE2 writes them. */
const sequence = (elements: readonly AST.Element[], backwards: boolean): string => {
  const parts = elements.map((element) => raw(element, backwards))
  return (backwards ? parts.reverse() : parts).join('')
}

function raw(element: AST.Element, backwards: boolean): string {
  switch (element.type) {
    case 'Group':
    case 'CapturingGroup':
      return oneOf(element.alternatives.map(({ elements }) => sequence(elements, backwards)))
    case 'Quantifier':
      return raw(element.element, backwards) + element.raw.slice(element.element.raw.length)
    case 'Assertion':
      if (element.kind === 'lookahead' || element.kind === 'lookbehind')
        throw new UserError(`${element.raw} looks around, which is not supported here`)
      // Of the text, not of its lines.
      if (element.kind === 'word') return element.raw
      return (element.kind === 'end') === backwards ? '\\A' : '\\z'
    case 'Backreference':
      throw new UserError(`${element.raw} refers back, which is not supported here`)
    default:
      return RE2JS.translateRegExp(element.raw)
  }
}

/** Backwards, what a match can begin with where the text ends: nothing, every beginning, the whole. */
function beginnings(alternatives: readonly AST.Alternative[]): string {
  return oneOf(
    alternatives.map(({ elements }) =>
      elements.reduceRight((rest, element) => `(?:|${inside(element)}${rest}${behind(element)})`, ''),
    ),
  )
}

/** What has passed an element. An assertion about the end of the text may not hold yet. */
function behind(element: AST.Element): string {
  return element.type === 'Assertion' && element.kind === 'end' ? '' : raw(element, true)
}

/** Beginnings of one element, as alternatives to go before others; those of a single character are none. */
function inside(element: AST.Element): string {
  if (element.type === 'Group' || element.type === 'CapturingGroup') return `${beginnings(element.alternatives)}|`
  if (element.type !== 'Quantifier') return ''
  const { element: repeated, max } = element
  if (max === 0) return ''
  const before = `${raw(repeated, true)}${max === Number.POSITIVE_INFINITY ? '*' : `{0,${max - 1}}`}`
  const group = repeated.type === 'Group' || repeated.type === 'CapturingGroup'
  return `${group ? beginnings(repeated.alternatives) : ''}${before}|`
}
