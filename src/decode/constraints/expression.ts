// What a constraint's front ends (regular expressions, JSON schemas, grammars) translate to: a language over Unicode text.
// Knows nothing about bytes, automata or tokens.

/** A language. Values are shared freely and never changed. */
export type Expression =
  /** One character whose code point is in one of the ranges: [first, last, first, last, ...], ascending, disjoint. */
  | { readonly type: 'class'; readonly ranges: readonly number[] }
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'sequence'; readonly parts: readonly Expression[] }
  | { readonly type: 'choice'; readonly options: readonly Expression[] }
  /** `max` may be Infinity. */
  | { readonly type: 'repeat'; readonly body: Expression; readonly min: number; readonly max: number }
  /** A rule of the grammar by its name; rules may call each other, also recursively. */
  | { readonly type: 'rule'; readonly name: string }
  /** What is in `left` and, if `negated`, not in `right`, else also in `right`. Both must be regular. */
  | { readonly type: 'product'; readonly left: Expression; readonly right: Expression; readonly negated: boolean }
  /** A deterministic automaton over ASCII that starts in its first state. */
  | { readonly type: 'automaton'; readonly states: readonly AutomatonState[] }

export interface AutomatonState {
  accepts: boolean
  /** Triples: a character code from the first to the second leads to the state with the third as index. */
  edges: readonly number[]
}

/** Rules by name, and the language of whole texts. */
export interface Grammar {
  root: Expression
  rules: ReadonlyMap<string, Expression>
}

const EMPTY: Expression = { type: 'sequence', parts: [] }

export const empty = (): Expression => EMPTY

/** The language without any text. */
export const nothing: Expression = { type: 'choice', options: [] }

export const text = (value: string): Expression => (value === '' ? EMPTY : { type: 'text', text: value })

export const sequence = (...parts: Expression[]): Expression =>
  parts.length === 1 ? parts[0] : { type: 'sequence', parts: parts.filter((part) => part !== EMPTY) }

export const choice = (...options: Expression[]): Expression =>
  options.length === 1 ? options[0] : { type: 'choice', options }

export const repeat = (body: Expression, min: number, max: number): Expression =>
  max === 0 ? EMPTY : min === 1 && max === 1 ? body : { type: 'repeat', body, min, max }

export const optional = (body: Expression): Expression => repeat(body, 0, 1)

export const rule = (name: string): Expression => ({ type: 'rule', name })

export const both = (left: Expression, right: Expression): Expression => ({
  type: 'product',
  left,
  right,
  negated: false,
})

export const except = (left: Expression, right: Expression): Expression => ({
  type: 'product',
  left,
  right,
  negated: true,
})

export const charClass = (ranges: readonly number[]): Expression => ({ type: 'class', ranges: normalize(ranges) })

/** `charSet('a-z', '_')`: characters, and ranges of them with a hyphen between. */
export const charSet = (...items: string[]): Expression =>
  charClass(
    items.flatMap((item) => {
      const chars = [...item]
      return chars.length === 3 && chars[1] === '-'
        ? [item.codePointAt(0)!, chars[2].codePointAt(0)!]
        : chars.flatMap((char) => [char.codePointAt(0)!, char.codePointAt(0)!])
    }),
  )

const MAX_CODE_POINT = 0x10ffff

/** Every character, as text has it: no lone surrogates. */
export const ANY_CHARACTER: readonly number[] = [0, 0xd7ff, 0xe000, MAX_CODE_POINT]

/** Sorted, merged ranges without surrogates, which are no characters. */
export function normalize(ranges: readonly number[]): number[] {
  const pairs: [number, number][] = []
  for (let i = 0; i < ranges.length; i += 2) {
    const first = ranges[i]
    const last = ranges[i + 1]
    if (first <= Math.min(last, 0xd7ff)) pairs.push([first, Math.min(last, 0xd7ff)])
    if (Math.max(first, 0xe000) <= last) pairs.push([Math.max(first, 0xe000), last])
  }
  pairs.sort((a, b) => a[0] - b[0])
  const merged: number[] = []
  for (const [first, last] of pairs) {
    const end = merged.length - 1
    if (end > 0 && first <= merged[end] + 1) merged[end] = Math.max(merged[end], last)
    else merged.push(first, last)
  }
  return merged
}

/** All characters that are not in the (normalized) ranges. */
export function complement(ranges: readonly number[]): number[] {
  const rest: number[] = []
  let next = 0
  for (let i = 0; i < ranges.length; i += 2) {
    if (ranges[i] > next) rest.push(next, ranges[i] - 1)
    next = ranges[i + 1] + 1
  }
  if (next <= MAX_CODE_POINT) rest.push(next, MAX_CODE_POINT)
  return normalize(rest)
}

/** Characters in both (normalized) ranges. */
export function intersect(a: readonly number[], b: readonly number[]): number[] {
  const common: number[] = []
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const first = Math.max(a[i], b[j])
    const last = Math.min(a[i + 1], b[j + 1])
    if (first <= last) common.push(first, last)
    if (a[i + 1] < b[j + 1]) i += 2
    else j += 2
  }
  return common
}
