// From tokens to the tree of a template: its statements. Follows jinja2's parser, with the tags that transformers allows: those
// of a single template, break and continue, and generation. Knows nothing about values.
import { createExpressionParser } from './expressions.ts'
import { createReader } from './reader.ts'
import type { Expression, Signature, Statement, Target } from './tree.ts'

/** Parses a template. Throws TemplateError, with the line, where it is none. */
export function parse(template: string): Statement[] {
  const reader = createReader(template)
  const { is, isName, isOperator, isSecond, take, skip, expect, fail, deeper } = reader
  /** Names that are read, of the macros that are being parsed. */
  const namesRead: Set<string>[] = []
  const { parseExpression, parseOr, parseTuple, parseFilters } = createExpressionParser(reader, (name) => {
    for (const names of namesRead) names.add(name)
  })

  const body = parseBody()
  if (skip('begin block')) fail(`unexpected tag ${take().text}`)
  return body

  /** Statements up to a tag named in `ends`, which is left to be read, or to the end of the template. */
  function parseBody(...ends: string[]): Statement[] {
    const statements: Statement[] = []
    while (!is('end of template')) {
      if (is('data')) statements.push({ kind: 'data', text: expect('data') })
      else if (skip('begin print')) {
        statements.push({ kind: 'print', value: parseTuple() })
        expect('end print')
      } else if (is('begin block') && ends.some((end) => isSecond('name', end))) return statements
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
}
