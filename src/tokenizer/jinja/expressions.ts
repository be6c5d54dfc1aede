// Expressions of a template, from what binds least to what binds most.
import type { Reader } from './reader.ts'
import type { Arguments, Expression } from './tree.ts'

const COMPARISONS = ['==', '!=', '<', '<=', '>', '>=']

export interface ExpressionParser {
  parseExpression(): Expression
  /** An expression without a condition. */
  parseOr(): Expression
  /** One item, or several as a tuple. */
  parseTuple(parseItem?: () => Expression): Expression
  /** Filters, one after the other; the first without its `|` where `inline`. What they apply to may come later. */
  parseFilters(value: Expression | undefined, inline: boolean): Expression | undefined
}

/** `onName` is told every name that is read. */
export function createExpressionParser(reader: Reader, onName: (name: string) => void): ExpressionParser {
  const { peek, is, isName, isOperator, isSecond, take, skip, expect, found, fail, deeper } = reader
  return { parseExpression, parseOr, parseTuple, parseFilters }

  function parseTuple(parseItem: () => Expression = parseExpression, inParentheses = false): Expression {
    const items: Expression[] = []
    let isTuple = false
    const ends = () => is('end print') || is('end block') || isOperator(')')
    while (!ends()) {
      items.push(parseItem())
      if (!skip('operator', ',')) break
      isTuple = true
    }
    if (isTuple) return { kind: 'tuple', items }
    if (items.length === 1) return items[0]!
    return inParentheses ? { kind: 'tuple', items } : fail(`expected an expression, found ${found()}`)
  }

  function parseExpression(): Expression {
    return deeper(() => {
      let value = parseOr()
      while (skip('name', 'if')) {
        const test = parseOr()
        value = { kind: 'condition', test, yes: value, no: skip('name', 'else') ? parseExpression() : undefined }
      }
      return value
    })
  }

  function parseOr(): Expression {
    let left = parseAnd()
    while (skip('name', 'or')) left = { kind: 'or', left, right: parseAnd() }
    return left
  }

  function parseAnd(): Expression {
    let left = parseNot()
    while (skip('name', 'and')) left = { kind: 'and', left, right: parseNot() }
    return left
  }

  function parseNot(): Expression {
    return skip('name', 'not') ? { kind: 'not', of: deeper(parseNot) } : parseComparison()
  }

  function parseComparison(): Expression {
    const first = parseSum()
    const rest: [string, Expression][] = []
    for (;;) {
      if (is('operator') && COMPARISONS.includes(peek().text)) rest.push([expect('operator'), parseSum()])
      else if (skip('name', 'in')) rest.push(['in', parseSum()])
      else if (isName('not') && isSecond('name', 'in')) {
        take()
        take()
        rest.push(['not in', parseSum()])
      } else return rest.length === 0 ? first : { kind: 'compare', first, rest }
    }
  }

  function parseBinary(operators: readonly string[], parseOperand: () => Expression): Expression {
    let left = parseOperand()
    while (is('operator') && operators.includes(peek().text))
      left = { kind: 'binary', operator: expect('operator'), left, right: parseOperand() }
    return left
  }

  function parseSum(): Expression {
    return parseBinary(['+', '-'], parseConcat)
  }

  function parseConcat(): Expression {
    const items = [parseProduct()]
    while (skip('operator', '~')) items.push(parseProduct())
    return items.length === 1 ? items[0]! : { kind: 'concat', items }
  }

  function parseProduct(): Expression {
    return parseBinary(['*', '/', '//', '%'], () => parseBinary(['**'], () => parseUnary(true)))
  }

  function parseUnary(withFilters: boolean): Expression {
    let value: Expression
    if (skip('operator', '-')) value = { kind: 'negative', of: deeper(() => parseUnary(false)) }
    else if (skip('operator', '+')) value = { kind: 'positive', of: deeper(() => parseUnary(false)) }
    else value = parsePrimary()
    value = parsePostfix(value)
    return withFilters ? parseFiltersAndTests(value) : value
  }

  function parsePrimary(): Expression {
    const { kind } = peek()
    const starts = ['name', 'string', 'integer', 'float'].includes(kind) || ['(', '[', '{'].some(isOperator)
    if (!starts) return fail(`unexpected ${found()}`)
    const token = take()
    switch (kind) {
      case 'name':
        return parseName(token.text)
      case 'string': {
        let value = token.text
        while (is('string')) value += expect('string')
        return { kind: 'constant', value }
      }
      case 'integer':
        return { kind: 'constant', value: BigInt(token.text.replaceAll('_', '')) }
      case 'float':
        return { kind: 'constant', value: Number(token.text.replaceAll('_', '')) }
      default: {
        if (token.text === '[') return { kind: 'list', items: parseItems(']', parseExpression) }
        if (token.text === '{') return { kind: 'dict', items: parseItems('}', parsePair) }
        const value = deeper(() => parseTuple(parseExpression, true))
        expect('operator', ')')
        return value
      }
    }
  }

  function parseName(name: string): Expression {
    const constants = new Map([
      ['true', true],
      ['false', false],
      ['none', null],
    ] as const)
    const lower = (name[0]!.toLowerCase() + name.slice(1)) as 'true'
    if (constants.has(lower)) return { kind: 'constant', value: constants.get(lower)! }
    onName(name)
    return { kind: 'name', name }
  }

  function parseItems<T>(end: string, parseItem: () => T): T[] {
    const items: T[] = []
    while (!isOperator(end)) {
      items.push(parseItem())
      if (!skip('operator', ',')) break
    }
    expect('operator', end)
    return items
  }

  function parsePair(): [Expression, Expression] {
    const key = parseExpression()
    expect('operator', ':')
    return [key, parseExpression()]
  }

  function parsePostfix(value: Expression): Expression {
    let of = value
    for (;;) {
      if (skip('operator', '.')) {
        if (is('integer')) of = { kind: 'item', of, key: parsePrimary() }
        else of = { kind: 'attribute', of, name: expect('name') }
      } else if (skip('operator', '[')) {
        of = parseSubscript(of)
        expect('operator', ']')
      } else if (isOperator('(')) of = { kind: 'call', of, arguments: parseArguments() }
      else return of
    }
  }

  function parseSubscript(of: Expression): Expression {
    const bounds: (Expression | undefined)[] = [undefined]
    while (!isOperator(']')) {
      if (skip('operator', ':')) bounds.push(undefined)
      else if (bounds.at(-1) === undefined) bounds[bounds.length - 1] = parseExpression()
      else break
    }
    if (bounds.length > 3) fail('a slice has three parts at most')
    if (bounds.length > 1) return { kind: 'slice', of, bounds }
    return bounds[0] === undefined ? fail('expected an index') : { kind: 'item', of, key: bounds[0] }
  }

  function parseArguments(): Arguments {
    const result: Arguments = { positional: [], named: [] }
    expect('operator', '(')
    while (!isOperator(')')) {
      if (result.spreadNamed) fail('nothing may follow ** in a call')
      if (skip('operator', '*')) result.spread = parseExpression()
      else if (skip('operator', '**')) result.spreadNamed = parseExpression()
      else if (is('name') && isSecond('operator', '=')) {
        const name = expect('name')
        expect('operator', '=')
        result.named.push([name, parseExpression()])
      } else {
        if (result.named.length > 0 || result.spread) fail('a positional argument follows a named one')
        result.positional.push(parseExpression())
      }
      if (!skip('operator', ',')) break
    }
    expect('operator', ')')
    return result
  }

  function parseFiltersAndTests(value: Expression): Expression {
    let of = value
    for (;;) {
      if (isOperator('|')) of = parseFilters(of, false)!
      else if (skip('name', 'is')) of = parseTest(of)
      else if (isOperator('(')) of = { kind: 'call', of, arguments: parseArguments() }
      else return of
    }
  }

  function parseFilters(value: Expression | undefined, inline: boolean): Expression | undefined {
    let of = value
    for (let first = inline; first || skip('operator', '|'); first = false) {
      const name = expect('name')
      const given = isOperator('(') ? parseArguments() : { positional: [], named: [] }
      of = { kind: 'filter', of, name, arguments: given }
    }
    return of
  }

  function parseTest(of: Expression): Expression {
    const negated = skip('name', 'not')
    const name = expect('name')
    let given: Arguments = { positional: [], named: [] }
    const isWord = is('name')
    if (isOperator('(')) given = parseArguments()
    else if (isWord && ['else', 'or', 'and', 'if', 'in', 'recursive', 'is', 'not'].includes(peek().text)) {
      if (isName('is')) fail('tests cannot be chained')
    } else if (isWord || is('string') || is('integer') || is('float') || isOperator('[') || isOperator('{'))
      given.positional.push(parsePostfix(parsePrimary()))
    const test: Expression = { kind: 'test', of, name, arguments: given }
    return negated ? { kind: 'not', of: test } : test
  }
}
