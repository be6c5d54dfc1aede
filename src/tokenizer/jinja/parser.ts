// From tokens to the tree of a template: its statements. Follows jinja2's parser, with the tags that transformers allows: those
// of a single template, break and continue, and generation. Knows nothing about values.
import { parseExpression, parseFilters, parseOr, parseTuple, type Source } from './expressions.ts'
import { createReader } from './reader.ts'
import type { Expression, Signature, Statement, Target } from './tree.ts'

/** Parses a template. Throws TemplateError, with the line, where it is none. */
export function parse(template: string): Statement[] {
  const source: Source = { ...createReader(template), namesRead: [] }
  const body = parseBody(source)
  if (source.skip('begin block')) source.fail(`unexpected tag ${source.take().text}`)
  return body
}

/** Statements up to a tag named in `ends`, which is left to be read, or to the end of the template. */
function parseBody(source: Source, ...ends: string[]): Statement[] {
  const statements: Statement[] = []
  while (!source.is('end of template')) {
    if (source.is('data')) statements.push({ kind: 'data', text: source.expect('data') })
    else if (source.skip('begin print')) {
      statements.push({ kind: 'print', value: parseTuple(source) })
      source.expect('end print')
    } else if (source.is('begin block') && ends.some((end) => source.isSecond('name', end))) return statements
    else {
      source.expect('begin block')
      statements.push(source.deeper(() => parseStatement(source)))
      source.expect('end block')
    }
  }
  if (ends.length > 0) source.fail(`the template ends before ${ends.join(' or ')}`)
  return statements
}

/** The body of a tag that has been read up to its end, and the name of the tag that ends it. */
function parseBlock(source: Source, ...ends: string[]): { body: Statement[]; end: string } {
  source.skip('operator', ':')
  source.expect('end block')
  const body = parseBody(source, ...ends)
  source.expect('begin block')
  return { body, end: source.expect('name') }
}

function parseStatement(source: Source): Statement {
  const tag = source.expect('name')
  switch (tag) {
    case 'if':
      return parseIf(source)
    case 'for':
      return parseFor(source)
    case 'set':
      return parseSet(source)
    case 'with':
      return parseWith(source)
    case 'macro': {
      const name = source.expect('name')
      return { kind: 'macro', name, ...parseSignature(source, parseParameters, 'endmacro') }
    }
    case 'call':
      return parseCallBlock(source)
    case 'filter': {
      const filter = parseFilters(source, undefined, true)!
      return { kind: 'filter block', filter, body: parseBlock(source, 'endfilter').body }
    }
    case 'generation':
      return { kind: 'generation', body: parseBlock(source, 'endgeneration').body }
    case 'break':
    case 'continue':
      return { kind: tag }
    default:
      return source.fail(`unknown tag ${tag}`)
  }
}

function parseIf(source: Source): Statement {
  const branches: { test: Expression; body: Statement[] }[] = []
  for (;;) {
    const test = parseTuple(source, parseOr)
    const { body, end } = parseBlock(source, 'elif', 'else', 'endif')
    branches.push({ test, body })
    if (end === 'elif') continue
    return { kind: 'if', branches, otherwise: end === 'else' ? parseBlock(source, 'endif').body : [] }
  }
}

function parseFor(source: Source): Statement {
  const target = parseTarget(source)
  source.expect('name', 'in')
  const items = parseTuple(source, parseOr)
  const test = source.skip('name', 'if') ? parseExpression(source) : undefined
  const recursive = source.skip('name', 'recursive')
  const { body, end } = parseBlock(source, 'endfor', 'else')
  const otherwise = end === 'else' ? parseBlock(source, 'endfor').body : []
  return { kind: 'for', target, items, test, recursive, body, otherwise }
}

function parseSet(source: Source): Statement {
  const target = parseTarget(source, true)
  if (source.skip('operator', '=')) return { kind: 'set', target, value: parseTuple(source) }
  const filter = parseFilters(source, undefined, false)
  return { kind: 'set block', target, filter, body: parseBlock(source, 'endset').body }
}

function parseWith(source: Source): Statement {
  const values: [Target, Expression][] = []
  while (!source.is('end block')) {
    if (values.length > 0) source.expect('operator', ',')
    const target = parseTarget(source)
    source.expect('operator', '=')
    values.push([target, parseExpression(source)])
  }
  return { kind: 'with', values, body: parseBlock(source, 'endwith').body }
}

function parseCallBlock(source: Source): Statement {
  let call: Expression | undefined
  const signature = parseSignature(
    source,
    () => {
      const parameters = source.isOperator('(') ? parseParameters(source) : []
      call = parseExpression(source)
      return parameters
    },
    'endcall',
  )
  if (call?.kind !== 'call') return source.fail('a call block needs a call')
  return { kind: 'call block', call, ...signature }
}

function parseSignature(
  source: Source,
  parseHead: (source: Source) => Signature['parameters'],
  end: string,
): Signature {
  const names = new Set<string>()
  source.namesRead.push(names)
  const parameters = parseHead(source)
  const { body } = parseBlock(source, end)
  source.namesRead.pop()
  return { parameters, body, usesVarargs: names.has('varargs'), usesKwargs: names.has('kwargs') }
}

function parseParameters(source: Source): Signature['parameters'] {
  const parameters: Signature['parameters'] = []
  source.expect('operator', '(')
  while (!source.isOperator(')')) {
    if (parameters.length > 0) source.expect('operator', ',')
    const name = source.expect('name')
    const value = source.skip('operator', '=') ? parseExpression(source) : undefined
    if (value === undefined && parameters.at(-1)?.value !== undefined)
      source.fail('a parameter without a default follows one with a default')
    parameters.push({ name, value })
  }
  source.expect('operator', ')')
  return parameters
}

/** What may be assigned to: names, in tuples or not, and with `namespaces` their attributes. */
function parseTarget(source: Source, namespaces = false): Target {
  const parseOne = (): Target => {
    if (source.skip('operator', '(')) {
      const target = source.deeper(() => parseTarget(source, namespaces))
      source.expect('operator', ')')
      return target
    }
    const name = source.expect('name')
    if (['true', 'false', 'none', 'True', 'False', 'None'].includes(name)) source.fail(`${name} cannot be set`)
    if (!namespaces || !source.skip('operator', '.')) return { kind: 'name', name }
    return { kind: 'namespace', name, attribute: source.expect('name') }
  }
  const items = [parseOne()]
  let isTuple = false
  while (source.skip('operator', ',')) {
    isTuple = true
    if (source.is('name') ? source.isName('in') : !source.isOperator('(')) break
    items.push(parseOne())
  }
  return isTuple ? { kind: 'tuple', items } : items[0]!
}
