// Expressions of a template, from what binds least to what binds most.
import type { Reader } from './reader.ts'
import type { Arguments, Expression } from './tree.ts'

const COMPARISONS = ['==', '!=', '<', '<=', '>', '>=']
const LITERALS = ['string', 'integer', 'float']

/** What is parsed: a template's tokens. */
export interface Source extends Reader {
  /** Names that are read, in a set for each of the macros that are being parsed. */
  namesRead: Set<string>[]
}

type Parse<T = Expression> = (source: Source) => T

/** One item, or several as a tuple. */
export function parseTuple(source: Source, parseItem: Parse = parseExpression, inParentheses = false): Expression {
  const items: Expression[] = []
  let isTuple = false
  const ends = () => source.is('end print') || source.is('end block') || source.isOperator(')')
  while (!ends()) {
    items.push(parseItem(source))
    if (!source.skip('operator', ',')) break
    isTuple = true
  }
  if (isTuple) return { kind: 'tuple', items }
  if (items.length === 1) return items[0]!
  return inParentheses ? { kind: 'tuple', items } : source.fail(`expected an expression, found ${source.found()}`)
}

export function parseExpression(source: Source): Expression {
  return source.deeper(() => {
    let value = parseOr(source)
    while (source.skip('name', 'if')) {
      const test = parseOr(source)
      value = {
        kind: 'condition',
        test,
        yes: value,
        no: source.skip('name', 'else') ? parseExpression(source) : undefined,
      }
    }
    return value
  })
}

/** An expression without a condition. */
export function parseOr(source: Source): Expression {
  let left = parseAnd(source)
  while (source.skip('name', 'or')) left = { kind: 'or', left, right: parseAnd(source) }
  return left
}

function parseAnd(source: Source): Expression {
  let left = parseNot(source)
  while (source.skip('name', 'and')) left = { kind: 'and', left, right: parseNot(source) }
  return left
}

function parseNot(source: Source): Expression {
  return source.skip('name', 'not')
    ? { kind: 'not', of: source.deeper(() => parseNot(source)) }
    : parseComparison(source)
}

function parseComparison(source: Source): Expression {
  const first = parseSum(source)
  const rest: [string, Expression][] = []
  for (;;) {
    if (source.is('operator') && COMPARISONS.includes(source.peek().text))
      rest.push([source.expect('operator'), parseSum(source)])
    else if (source.skip('name', 'in')) rest.push(['in', parseSum(source)])
    else if (source.isName('not') && source.isSecond('name', 'in')) {
      source.take()
      source.take()
      rest.push(['not in', parseSum(source)])
    } else return rest.length === 0 ? first : { kind: 'compare', first, rest }
  }
}

function parseBinary(source: Source, operators: readonly string[], parseOperand: Parse): Expression {
  let left = parseOperand(source)
  while (source.is('operator') && operators.includes(source.peek().text))
    left = { kind: 'binary', operator: source.expect('operator'), left, right: parseOperand(source) }
  return left
}

function parseSum(source: Source): Expression {
  return parseBinary(source, ['+', '-'], parseConcat)
}

function parseConcat(source: Source): Expression {
  const items = [parseProduct(source)]
  while (source.skip('operator', '~')) items.push(parseProduct(source))
  return items.length === 1 ? items[0]! : { kind: 'concat', items }
}

function parseProduct(source: Source): Expression {
  return parseBinary(source, ['*', '/', '//', '%'], () => parseBinary(source, ['**'], () => parseUnary(source, true)))
}

function parseUnary(source: Source, withFilters: boolean): Expression {
  let value: Expression
  if (source.skip('operator', '-')) value = { kind: 'negative', of: source.deeper(() => parseUnary(source, false)) }
  else if (source.skip('operator', '+'))
    value = { kind: 'positive', of: source.deeper(() => parseUnary(source, false)) }
  else value = parsePrimary(source)
  value = parsePostfix(source, value)
  return withFilters ? parseFiltersAndTests(source, value) : value
}

function parsePrimary(source: Source): Expression {
  const { kind } = source.peek()
  const starts = kind === 'name' || LITERALS.includes(kind) || ['(', '[', '{'].some(source.isOperator)
  if (!starts) return source.fail(`unexpected ${source.found()}`)
  const token = source.take()
  switch (kind) {
    case 'name':
      return parseName(source, token.text)
    case 'string': {
      let value = token.text
      while (source.is('string')) value += source.expect('string')
      return { kind: 'constant', value }
    }
    case 'integer':
      return { kind: 'constant', value: BigInt(token.text.replaceAll('_', '')) }
    case 'float':
      return { kind: 'constant', value: Number(token.text.replaceAll('_', '')) }
    default: {
      if (token.text === '[') return { kind: 'list', items: parseItems(source, ']', parseExpression) }
      if (token.text === '{') return { kind: 'dict', items: parseItems(source, '}', parsePair) }
      const value = source.deeper(() => parseTuple(source, parseExpression, true))
      source.expect('operator', ')')
      return value
    }
  }
}

function parseName(source: Source, name: string): Expression {
  const constants = new Map([
    ['true', true],
    ['false', false],
    ['none', null],
  ] as const)
  const lower = (name[0]!.toLowerCase() + name.slice(1)) as 'true'
  if (constants.has(lower)) return { kind: 'constant', value: constants.get(lower)! }
  for (const names of source.namesRead) names.add(name)
  return { kind: 'name', name }
}

function parseItems<T>(source: Source, end: string, parseItem: Parse<T>): T[] {
  const items: T[] = []
  while (!source.isOperator(end)) {
    items.push(parseItem(source))
    if (!source.skip('operator', ',')) break
  }
  source.expect('operator', end)
  return items
}

function parsePair(source: Source): [Expression, Expression] {
  const key = parseExpression(source)
  source.expect('operator', ':')
  return [key, parseExpression(source)]
}

function parsePostfix(source: Source, value: Expression): Expression {
  let of = value
  for (;;) {
    if (source.skip('operator', '.')) {
      if (source.is('integer')) of = { kind: 'item', of, key: parsePrimary(source) }
      else of = { kind: 'attribute', of, name: source.expect('name') }
    } else if (source.skip('operator', '[')) {
      of = parseSubscript(source, of)
      source.expect('operator', ']')
    } else if (source.isOperator('(')) of = { kind: 'call', of, arguments: parseArguments(source) }
    else return of
  }
}

function parseSubscript(source: Source, of: Expression): Expression {
  const bounds: (Expression | undefined)[] = [undefined]
  while (!source.isOperator(']')) {
    if (source.skip('operator', ':')) bounds.push(undefined)
    else if (bounds.at(-1) === undefined) bounds[bounds.length - 1] = parseExpression(source)
    else break
  }
  if (bounds.length > 3) source.fail('a slice has three parts at most')
  if (bounds.length > 1) return { kind: 'slice', of, bounds }
  return bounds[0] === undefined ? source.fail('expected an index') : { kind: 'item', of, key: bounds[0] }
}

function parseArguments(source: Source): Arguments {
  const result: Arguments = { positional: [], named: [] }
  source.expect('operator', '(')
  while (!source.isOperator(')')) {
    if (result.spreadNamed) source.fail('nothing may follow ** in a call')
    if (source.skip('operator', '*')) result.spread = parseExpression(source)
    else if (source.skip('operator', '**')) result.spreadNamed = parseExpression(source)
    else if (source.is('name') && source.isSecond('operator', '=')) {
      const name = source.expect('name')
      source.expect('operator', '=')
      result.named.push([name, parseExpression(source)])
    } else {
      if (result.named.length > 0 || result.spread) source.fail('a positional argument follows a named one')
      result.positional.push(parseExpression(source))
    }
    if (!source.skip('operator', ',')) break
  }
  source.expect('operator', ')')
  return result
}

function parseFiltersAndTests(source: Source, value: Expression): Expression {
  let of = value
  for (;;) {
    if (source.isOperator('|')) of = parseFilters(source, of, false)!
    else if (source.skip('name', 'is')) of = parseTest(source, of)
    else if (source.isOperator('(')) of = { kind: 'call', of, arguments: parseArguments(source) }
    else return of
  }
}

/** Filters, one after the other; the first without its `|` where `inline`. What they apply to may come later. */
export function parseFilters(source: Source, value: Expression | undefined, inline: boolean): Expression | undefined {
  let of = value
  for (let first = inline; first || source.skip('operator', '|'); first = false) {
    const name = source.expect('name')
    const given = source.isOperator('(') ? parseArguments(source) : { positional: [], named: [] }
    of = { kind: 'filter', of, name, arguments: given }
  }
  return of
}

function parseTest(source: Source, of: Expression): Expression {
  const negated = source.skip('name', 'not')
  const name = source.expect('name')
  let given: Arguments = { positional: [], named: [] }
  const isWord = source.is('name')
  if (source.isOperator('(')) given = parseArguments(source)
  else if (isWord && ['else', 'or', 'and', 'if', 'in', 'recursive', 'is', 'not'].includes(source.peek().text)) {
    if (source.isName('is')) source.fail('tests cannot be chained')
  } else if (isWord || LITERALS.includes(source.peek().kind) || ['[', '{'].some(source.isOperator))
    given.positional.push(parsePostfix(source, parsePrimary(source)))
  const test: Expression = { kind: 'test', of, name, arguments: given }
  return negated ? { kind: 'not', of: test } : test
}
