// From tokens to the tree of a template. Follows jinja2's parser, with the tags that transformers allows: those of a
// single template, break and continue, and generation. Knows nothing about values.

import { type Token, tokenize } from './lexer.ts'
import { TemplateError } from './text.ts'

export interface Arguments {
  positional: Expression[]
  named: [string, Expression][]
  /** `*list` and `**dict`. */
  spread?: Expression
  spreadNamed?: Expression
}

export type Expression =
  | { kind: 'constant'; value: string | number | bigint | boolean | null }
  | { kind: 'name'; name: string }
  | { kind: 'list' | 'tuple'; items: Expression[] }
  | { kind: 'dict'; items: [Expression, Expression][] }
  | { kind: 'attribute'; of: Expression; name: string }
  | { kind: 'item'; of: Expression; key: Expression }
  | { kind: 'slice'; of: Expression; bounds: (Expression | undefined)[] }
  | { kind: 'call'; of: Expression; arguments: Arguments }
  | { kind: 'filter'; of: Expression | undefined; name: string; arguments: Arguments }
  | { kind: 'test'; of: Expression; name: string; arguments: Arguments }
  | { kind: 'not' | 'negative' | 'positive'; of: Expression }
  | { kind: 'and' | 'or'; left: Expression; right: Expression }
  | { kind: 'binary'; operator: string; left: Expression; right: Expression }
  | { kind: 'concat'; items: Expression[] }
  | { kind: 'compare'; first: Expression; rest: [operator: string, Expression][] }
  | { kind: 'condition'; test: Expression; yes: Expression; no: Expression | undefined }

export type Target =
  | { kind: 'name'; name: string }
  | { kind: 'tuple'; items: Target[] }
  | { kind: 'namespace'; name: string; attribute: string }

export interface Signature {
  parameters: { name: string; value: Expression | undefined }[]
  body: Statement[]
  /** Whether the body names `varargs` and `kwargs`, which decides whether others than its parameters are accepted. */
  usesVarargs: boolean
  usesKwargs: boolean
}

export type Statement =
  | { kind: 'data'; text: string }
  | { kind: 'print'; value: Expression }
  | { kind: 'if'; branches: { test: Expression; body: Statement[] }[]; otherwise: Statement[] }
  | ({ kind: 'for'; target: Target; items: Expression } & {
      test: Expression | undefined
      recursive: boolean
      body: Statement[]
      otherwise: Statement[]
    })
  | { kind: 'set'; target: Target; value: Expression }
  | { kind: 'set block'; target: Target; filter: Expression | undefined; body: Statement[] }
  | { kind: 'with'; values: [Target, Expression][]; body: Statement[] }
  | { kind: 'filter block'; filter: Expression; body: Statement[] }
  | ({ kind: 'macro'; name: string } & Signature)
  | ({ kind: 'call block'; call: Expression & { kind: 'call' } } & Signature)
  | { kind: 'generation'; body: Statement[] }
  | { kind: 'break' | 'continue' }

const COMPARISONS = ['==', '!=', '<', '<=', '>', '>=']
/** Nesting beyond this is hostile: the parser and the renderer call themselves for each level. */
const MAX_DEPTH = 200

/** Parses a template. Throws TemplateError, with the line, where it is none. */
export function parse(template: string): Statement[] {
  const tokens = tokenize(template)
  let next = 0
  let depth = 0
  /** Names that are read, of the macros that are being parsed. */
  const namesRead: Set<string>[] = []
  const peek = (): Token => tokens[next]!
  const fail = (problem: string): never => {
    throw new TemplateError(`line ${peek().line}: ${problem}`)
  }
  const found = () => (peek().kind === 'end of template' ? 'the end of the template' : JSON.stringify(peek().text))

  const is = (kind: Token['kind'], text?: string, at = next): boolean =>
    tokens[at]?.kind === kind && (text === undefined || tokens[at].text === text)
  const isName = (text: string): boolean => is('name', text)
  const isOperator = (text: string): boolean => is('operator', text)
  const skip = (kind: Token['kind'], text?: string): boolean => {
    if (!is(kind, text)) return false
    next++
    return true
  }
  const expect = (kind: Token['kind'], text?: string): string => {
    if (!is(kind, text)) fail(`expected ${text ?? kind}, found ${found()}`)
    return tokens[next++]!.text
  }
  const deeper = <T>(parsePart: () => T): T => {
    if (++depth > MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH} levels`)
    const part = parsePart()
    depth--
    return part
  }

  const body = parseBody()
  if (is('begin block')) fail(`unexpected tag ${tokens[next + 1]!.text}`)
  return body

  // Statements

  /** Statements up to a tag named in `ends`, which is left to be read, or to the end of the template. */
  function parseBody(...ends: string[]): Statement[] {
    const statements: Statement[] = []
    while (!is('end of template')) {
      if (is('data')) statements.push({ kind: 'data', text: expect('data') })
      else if (skip('begin print')) {
        statements.push({ kind: 'print', value: parseTuple() })
        expect('end print')
      } else if (is('begin block') && ends.some((end) => is('name', end, next + 1))) return statements
      else {
        expect('begin block')
        statements.push(deeper(parseStatement))
        expect('end block')
      }
    }
    if (ends.length > 0) fail(`the template ends before ${ends.join(' or ')}`)
    return statements
  }

  /** The body of a tag that has been read up to its end, and the name of the tag that ends it. */
  function parseBlock(...ends: string[]): { body: Statement[]; end: string } {
    skip('operator', ':')
    expect('end block')
    const body = parseBody(...ends)
    expect('begin block')
    return { body, end: expect('name') }
  }

  function parseStatement(): Statement {
    const tag = expect('name')
    switch (tag) {
      case 'if':
        return parseIf()
      case 'for':
        return parseFor()
      case 'set':
        return parseSet()
      case 'with':
        return parseWith()
      case 'macro': {
        const name = expect('name')
        return { kind: 'macro', name, ...parseSignature(parseParameters, 'endmacro') }
      }
      case 'call':
        return parseCallBlock()
      case 'filter': {
        const filter = parseFilters(undefined, true)!
        return { kind: 'filter block', filter, body: parseBlock('endfilter').body }
      }
      case 'generation':
        return { kind: 'generation', body: parseBlock('endgeneration').body }
      case 'break':
      case 'continue':
        return { kind: tag }
      default:
        return fail(`unknown tag ${tag}`)
    }
  }

  function parseIf(): Statement {
    const branches: { test: Expression; body: Statement[] }[] = []
    for (;;) {
      const test = parseTuple(parseOr)
      const { body, end } = parseBlock('elif', 'else', 'endif')
      branches.push({ test, body })
      if (end === 'elif') continue
      return { kind: 'if', branches, otherwise: end === 'else' ? parseBlock('endif').body : [] }
    }
  }

  function parseFor(): Statement {
    const target = parseTarget()
    expect('name', 'in')
    const items = parseTuple(parseOr)
    const test = skip('name', 'if') ? parseExpression() : undefined
    const recursive = skip('name', 'recursive')
    const { body, end } = parseBlock('endfor', 'else')
    const otherwise = end === 'else' ? parseBlock('endfor').body : []
    return { kind: 'for', target, items, test, recursive, body, otherwise }
  }

  function parseSet(): Statement {
    const target = parseTarget(true)
    if (skip('operator', '=')) return { kind: 'set', target, value: parseTuple() }
    const filter = parseFilters(undefined, false)
    return { kind: 'set block', target, filter, body: parseBlock('endset').body }
  }

  function parseWith(): Statement {
    const values: [Target, Expression][] = []
    while (!is('end block')) {
      if (values.length > 0) expect('operator', ',')
      const target = parseTarget()
      expect('operator', '=')
      values.push([target, parseExpression()])
    }
    return { kind: 'with', values, body: parseBlock('endwith').body }
  }

  function parseCallBlock(): Statement {
    let call: Expression | undefined
    const signature = parseSignature(() => {
      const parameters = isOperator('(') ? parseParameters() : []
      call = parseExpression()
      return parameters
    }, 'endcall')
    if (call?.kind !== 'call') return fail('a call block needs a call')
    return { kind: 'call block', call, ...signature }
  }

  function parseSignature(parseHead: () => Signature['parameters'], end: string): Signature {
    const names = new Set<string>()
    namesRead.push(names)
    const parameters = parseHead()
    const { body } = parseBlock(end)
    namesRead.pop()
    return { parameters, body, usesVarargs: names.has('varargs'), usesKwargs: names.has('kwargs') }
  }

  function parseParameters(): Signature['parameters'] {
    const parameters: Signature['parameters'] = []
    expect('operator', '(')
    while (!isOperator(')')) {
      if (parameters.length > 0) expect('operator', ',')
      const name = expect('name')
      const value = skip('operator', '=') ? parseExpression() : undefined
      if (value === undefined && parameters.at(-1)?.value !== undefined)
        fail('a parameter without a default follows one with a default')
      parameters.push({ name, value })
    }
    expect('operator', ')')
    return parameters
  }

  /** What may be assigned to: names, in tuples or not, and with `namespaces` their attributes. */
  function parseTarget(namespaces = false): Target {
    const parseOne = (): Target => {
      if (skip('operator', '(')) {
        const target = deeper(() => parseTarget(namespaces))
        expect('operator', ')')
        return target
      }
      const name = expect('name')
      if (['true', 'false', 'none', 'True', 'False', 'None'].includes(name)) fail(`${name} cannot be set`)
      if (!namespaces || !skip('operator', '.')) return { kind: 'name', name }
      return { kind: 'namespace', name, attribute: expect('name') }
    }
    const items = [parseOne()]
    let isTuple = false
    while (skip('operator', ',')) {
      isTuple = true
      if (is('name') ? isName('in') : !isOperator('(')) break
      items.push(parseOne())
    }
    return isTuple ? { kind: 'tuple', items } : items[0]!
  }

  // Expressions, from what binds least

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
      else if (isName('not') && is('name', 'in', next + 1)) {
        next += 2
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
    const token = peek()
    next++
    switch (token.kind) {
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
      case 'operator':
        if (token.text === '(') {
          const value = deeper(() => parseTuple(parseExpression, true))
          expect('operator', ')')
          return value
        }
        if (token.text === '[') return { kind: 'list', items: parseItems(']', parseExpression) }
        if (token.text === '{') return { kind: 'dict', items: parseItems('}', parsePair) }
    }
    next--
    return fail(`unexpected ${found()}`)
  }

  function parseName(name: string): Expression {
    const constants = new Map([
      ['true', true],
      ['false', false],
      ['none', null],
    ] as const)
    const lower = (name[0]!.toLowerCase() + name.slice(1)) as 'true'
    if (constants.has(lower)) return { kind: 'constant', value: constants.get(lower)! }
    for (const names of namesRead) names.add(name)
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
      else if (is('name') && is('operator', '=', next + 1)) {
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

  /** Filters, one after the other; the first without its `|` where `inline`. What they apply to may come later. */
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
