// Renders the tree of a template: scopes, statements, expressions. Follows the code that jinja2 compiles templates to.

import { add, filterOf } from './filters.ts'
import { formatPercent } from './format.ts'
import { getAttribute, getItem, getSlice } from './lookup.ts'
import type { Arguments, Expression, Signature, Statement, Target } from './parser.ts'
import { testOf } from './tests.ts'
import { TemplateError } from './text.ts'
import {
  Callable,
  compare,
  contains,
  Dict,
  equals,
  type Given,
  isNumeric,
  isTrue,
  iterate,
  Namespace,
  numeric,
  or,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
} from './values.ts'

/** More statements and expressions than this, and the template is taken for one without an end. */
const MAX_STEPS = 2_000_000
/** The longest list or text that one operation may make by repetition, and the longest integer. */
const MAX_REPEATED = 1 << 26
const MAX_BITS = 1 << 14

class Scope {
  readonly #names = new Map<string, Value>()
  constructor(readonly parent?: Scope) {}
  get(name: string): Value | undefined {
    const value = this.#names.get(name)
    return value === undefined ? this.parent?.get(name) : value
  }
  set(name: string, value: Value): void {
    this.#names.set(name, value)
  }
}

/** Thrown by `break` and `continue` up to their loop, with what the iteration had written. */
class LoopControl extends Error {
  written = ''
  constructor(readonly tag: 'break' | 'continue') {
    super(`${tag} outside of a loop`)
  }
}

/** The text of a template. `globals` are its variables and functions. Throws TemplateError. */
export function render(template: readonly Statement[], globals: ReadonlyMap<string, Value>): string {
  const root = new Scope()
  for (const [name, value] of globals) root.set(name, value)
  let steps = 0
  return renderAll(template, new Scope(root))

  function count(): void {
    if (++steps > MAX_STEPS) throw new TemplateError('it does more than a chat template should; does it end?')
  }

  // Statements

  function renderAll(statements: readonly Statement[], scope: Scope): string {
    let text = ''
    try {
      for (const statement of statements) text += renderOne(statement, scope)
    } catch (error) {
      if (error instanceof LoopControl) error.written = text + error.written
      throw error
    }
    return text
  }

  function renderOne(statement: Statement, scope: Scope): string {
    count()
    switch (statement.kind) {
      case 'data':
        return statement.text
      case 'print':
        return textOf(evaluate(statement.value, scope))
      case 'if': {
        const branch = statement.branches.find(({ test }) => isTrue(evaluate(test, scope)))
        return renderAll(branch?.body ?? statement.otherwise, scope)
      }
      case 'for':
        return renderFor(statement, evaluate(statement.items, scope), scope, 1)
      case 'set':
        assign(statement.target, evaluate(statement.value, scope), scope)
        return ''
      case 'set block': {
        const text = renderAll(statement.body, new Scope(scope))
        assign(statement.target, statement.filter ? filterText(statement.filter, text, scope) : text, scope)
        return ''
      }
      case 'with': {
        const inner = new Scope(scope)
        for (const [target, value] of statement.values) assign(target, evaluate(value, scope), inner)
        return renderAll(statement.body, inner)
      }
      case 'filter block':
        return textOf(filterText(statement.filter, renderAll(statement.body, new Scope(scope)), scope))
      case 'macro':
        scope.set(statement.name, macro(statement.name, statement, scope))
        return ''
      case 'call block': {
        const { call } = statement
        const given = evaluateArguments(call.arguments, scope)
        given.named.set('caller', macro('caller', statement, scope))
        return textOf(callValue(evaluate(call.of, scope), given))
      }
      case 'generation':
        return renderAll(statement.body, new Scope(scope))
      case 'break':
      case 'continue':
        throw new LoopControl(statement.kind)
    }
  }

  function renderFor(loop: Statement & { kind: 'for' }, value: Value, outer: Scope, depth: number): string {
    const { target, test, body } = loop
    const items = iterate(value).filter((item) => {
      if (!test) return true
      const scope = new Scope(outer)
      assign(target, item, scope)
      return isTrue(evaluate(test, scope))
    })
    let text = ''
    const changed = { values: undefined as Value[] | undefined }
    for (const [index, item] of items.entries()) {
      count()
      const scope = new Scope(outer)
      scope.set('loop', loopValue(loop, items, index, outer, depth, changed))
      assign(target, item, scope)
      try {
        text += renderAll(body, scope)
      } catch (error) {
        if (!(error instanceof LoopControl)) throw error
        text += error.written
        if (error.tag === 'break') break
      }
    }
    return items.length > 0 ? text : renderAll(loop.otherwise, new Scope(outer))
  }

  function loopValue(
    loop: Statement & { kind: 'for' },
    items: readonly Value[],
    index: number,
    outer: Scope,
    depth: number,
    changed: { values: Value[] | undefined },
  ): Value {
    const cycle = ({ positional }: Given): Value => {
      if (positional.length === 0) throw new TemplateError('no items for cycling given')
      return positional[index % positional.length]!
    }
    const hasChanged = ({ positional }: Given): Value => {
      const same = changed.values !== undefined && equals(changed.values, positional)
      changed.values = positional
      return !same
    }
    const again = ({ positional }: Given): Value => {
      if (!loop.recursive) throw new TemplateError("the loop is not 'recursive'")
      return renderFor(loop, positional[0] ?? new Undefined('loop() needs a list'), outer, depth + 1)
    }
    const attribute = (name: string): Value | undefined => {
      switch (name) {
        case 'index':
          return BigInt(index + 1)
        case 'index0':
          return BigInt(index)
        case 'revindex':
          return BigInt(items.length - index)
        case 'revindex0':
          return BigInt(items.length - index - 1)
        case 'first':
          return index === 0
        case 'last':
          return index === items.length - 1
        case 'length':
          return BigInt(items.length)
        case 'depth':
          return BigInt(depth)
        case 'depth0':
          return BigInt(depth - 1)
        case 'previtem':
          return or(items[index - 1], new Undefined('there is no previous item'))
        case 'nextitem':
          return or(items[index + 1], new Undefined('there is no next item'))
        case 'cycle':
          return new Callable('cycle', cycle)
        case 'changed':
          return new Callable('changed', hasChanged)
      }
      return undefined
    }
    return new Callable('loop', again, attribute)
  }

  function assign(target: Target, value: Value, scope: Scope): void {
    if (target.kind === 'name') scope.set(target.name, value)
    else if (target.kind === 'namespace') {
      const namespace = scope.get(target.name)
      if (!(namespace instanceof Namespace)) throw new TemplateError('cannot assign attribute on non-namespace object')
      namespace.attributes.set(target.attribute, value)
    } else {
      const items = iterate(value)
      if (items.length !== target.items.length) {
        const problem = items.length > target.items.length ? 'too many' : 'not enough'
        throw new TemplateError(`${problem} values to unpack (expected ${target.items.length})`)
      }
      for (const [i, part] of target.items.entries()) assign(part, items[i]!, scope)
    }
  }

  function filterText(filter: Expression, text: string, scope: Scope): Value {
    const inner = new Scope(scope)
    inner.set(FILTERED, text)
    return evaluate(filter, inner)
  }

  function macro(name: string, signature: Signature, scope: Scope): Callable {
    const { parameters, body, usesVarargs, usesKwargs } = signature
    const call = ({ positional, named }: Given): Value => {
      const inner = new Scope(scope)
      const rest = new Map(named)
      const caller = rest.get('caller')
      rest.delete('caller')
      inner.set('caller', caller ?? new Undefined('No caller defined'))
      for (const [i, parameter] of parameters.entries()) {
        let value =
          i < positional.length ? positional[i] : parameter.name === 'caller' ? caller : rest.get(parameter.name)
        rest.delete(parameter.name)
        if (value === undefined && parameter.value) value = evaluate(parameter.value, inner)
        inner.set(parameter.name, or(value, new Undefined(`parameter '${parameter.name}' was not provided`)))
      }
      const extra = positional.slice(parameters.length)
      if (usesVarargs) inner.set('varargs', new Tuple(extra))
      else if (extra.length > 0)
        throw new TemplateError(`macro '${name}' takes not more than ${parameters.length} argument(s)`)
      const [unknown] = rest.keys()
      if (usesKwargs) inner.set('kwargs', new Dict(rest))
      else if (unknown !== undefined) throw new TemplateError(`macro '${name}' takes no keyword argument '${unknown}'`)
      return renderAll(body, inner)
    }
    const attribute = (asked: string): Value | undefined => {
      if (asked === 'name') return name
      return asked === 'arguments' ? new Tuple(parameters.map((parameter) => parameter.name)) : undefined
    }
    return new Callable(name, call, attribute, 'Macro')
  }

  // Expressions

  function evaluate(expression: Expression, scope: Scope): Value {
    count()
    switch (expression.kind) {
      case 'constant':
        return expression.value
      case 'name':
        return or(scope.get(expression.name), new Undefined(`'${expression.name}' is undefined`))
      case 'list':
        return expression.items.map((item) => evaluate(item, scope))
      case 'tuple':
        return new Tuple(expression.items.map((item) => evaluate(item, scope)))
      case 'dict':
        return new Dict(expression.items.map(([key, value]) => [evaluate(key, scope), evaluate(value, scope)]))
      case 'attribute':
        return getAttribute(evaluate(expression.of, scope), expression.name)
      case 'item':
        return getItem(evaluate(expression.of, scope), evaluate(expression.key, scope))
      case 'slice': {
        const of = evaluate(expression.of, scope)
        return getSlice(
          of,
          expression.bounds.map((bound) => (bound ? evaluate(bound, scope) : null)),
        )
      }
      case 'call': {
        const called = evaluate(expression.of, scope)
        return callValue(called, evaluateArguments(expression.arguments, scope))
      }
      case 'filter': {
        const filter = filterOf(expression.name)
        const of = expression.of ? evaluate(expression.of, scope) : scope.get(FILTERED)!
        if (!filter) throw new TemplateError(`No filter named '${expression.name}'.`)
        return filter(of, evaluateArguments(expression.arguments, scope))
      }
      case 'test':
        return evaluateTest(expression, scope)
      case 'not':
        return !isTrue(evaluate(expression.of, scope))
      case 'negative':
      case 'positive': {
        const value = evaluate(expression.of, scope)
        if (value instanceof Undefined) return value.fail()
        if (!isNumeric(value)) throw new TemplateError(`bad operand type for a sign: '${typeName(value)}'`)
        return expression.kind === 'negative' ? -numeric(value) : numeric(value)
      }
      case 'and': {
        const left = evaluate(expression.left, scope)
        return isTrue(left) ? evaluate(expression.right, scope) : left
      }
      case 'or': {
        const left = evaluate(expression.left, scope)
        return isTrue(left) ? left : evaluate(expression.right, scope)
      }
      case 'binary':
        return operate(expression.operator, evaluate(expression.left, scope), evaluate(expression.right, scope))
      case 'concat':
        return expression.items.map((item) => textOf(evaluate(item, scope))).join('')
      case 'compare':
        return evaluateComparison(expression, scope)
      case 'condition':
        if (isTrue(evaluate(expression.test, scope))) return evaluate(expression.yes, scope)
        if (expression.no) return evaluate(expression.no, scope)
        return new Undefined('the condition is false and has no else')
    }
  }

  function evaluateArguments(given: Arguments, scope: Scope): Given {
    const positional = given.positional.map((argument) => evaluate(argument, scope))
    const named = new Map(given.named.map(([name, argument]) => [name, evaluate(argument, scope)]))
    if (given.spread) positional.push(...iterate(evaluate(given.spread, scope)))
    if (given.spreadNamed) {
      const values = evaluate(given.spreadNamed, scope)
      if (!(values instanceof Dict)) throw new TemplateError(`** needs a dict, not ${typeName(values)}`)
      for (const [name, value] of values.entries()) named.set(textOf(name), value)
    }
    return { positional, named }
  }

  function callValue(called: Value, given: Given): Value {
    if (called instanceof Undefined) return called.fail()
    if (!(called instanceof Callable)) throw new TemplateError(`'${typeName(called)}' object is not callable`)
    return called.call(given)
  }

  function evaluateTest(expression: Expression & { kind: 'test' }, scope: Scope): Value {
    const test = testOf(expression.name)
    const value = evaluate(expression.of, scope)
    const { positional } = evaluateArguments(expression.arguments, scope)
    // These two ask for the names that are known here, so they are not among the others.
    if (expression.name === 'filter') return filterOf(textOf(value)) !== undefined
    if (expression.name === 'test') return isTestName(textOf(value))
    if (!test) throw new TemplateError(`No test named '${expression.name}'.`)
    return test(value, positional[0] ?? null)
  }

  function evaluateComparison({ first, rest }: Expression & { kind: 'compare' }, scope: Scope): Value {
    let left = evaluate(first, scope)
    for (const [operator, expression] of rest) {
      const right = evaluate(expression, scope)
      if (!holds(operator, left, right)) return false
      left = right
    }
    return true
  }
}

/** The name under which a filter block's filter finds its text; no template can write it. */
const FILTERED = ' filtered'

const isTestName = (name: string) => name === 'filter' || name === 'test' || testOf(name) !== undefined

function holds(operator: string, left: Value, right: Value): boolean {
  switch (operator) {
    case '==':
      return equals(left, right)
    case '!=':
      return !equals(left, right)
    case 'in':
      return contains(right, left)
    case 'not in':
      return !contains(right, left)
    case '<':
      return compare(left, right, operator) < 0
    case '<=':
      return compare(left, right, operator) <= 0
    case '>':
      return compare(left, right, operator) > 0
    default:
      return compare(left, right, operator) >= 0
  }
}

function operate(operator: string, left: Value, right: Value): Value {
  for (const value of [left, right]) if (value instanceof Undefined) value.fail()
  if (operator === '+') return add(left, right)
  if (operator === '%' && typeof left === 'string') return formatPercent(left, right)
  if (operator === '*') {
    if (typeof right === 'bigint' && !isNumeric(left)) return repeat(left, right)
    if (typeof left === 'bigint' && !isNumeric(right)) return repeat(right, left)
  }
  if (!isNumeric(left) || !isNumeric(right))
    throw new TemplateError(`unsupported operand types for ${operator}: '${typeName(left)}' and '${typeName(right)}'`)
  const [a, b] = [numeric(left), numeric(right)]
  return typeof a === 'bigint' && typeof b === 'bigint'
    ? operateIntegers(operator, a, b)
    : operateFloats(operator, Number(a), Number(b))
}

function repeat(value: Value, times: bigint): Value {
  const count = times > 0n ? Number(times) : 0
  const size = typeof value === 'string' ? value.length : Array.isArray(value) ? value.length : 1
  if (count * size > MAX_REPEATED) throw new TemplateError(`${count} times ${size} is too much`)
  if (typeof value === 'string') return value.repeat(count)
  const items = value instanceof Tuple ? value.items : Array.isArray(value) ? value : undefined
  if (!items) throw new TemplateError(`a ${typeName(value)} cannot be repeated`)
  const repeated = Array.from({ length: count }, () => items).flat()
  return value instanceof Tuple ? new Tuple(repeated) : repeated
}

const bounded = (value: bigint): bigint => {
  if (BigInt.asIntN(MAX_BITS, value) !== value) throw new TemplateError('an integer is too large')
  return value
}

const divisor = <T extends number | bigint>(value: T): T => {
  if (Number(value) === 0) throw new TemplateError('division by zero')
  return value
}

function operateIntegers(operator: string, a: bigint, b: bigint): Value {
  switch (operator) {
    case '-':
      return a - b
    case '*':
      return bounded(a * b)
    case '/':
      return Number(a) / Number(divisor(b))
    case '**':
      if (b < 0n) return Number(divisor(a)) ** Number(b)
      if (b > MAX_BITS) throw new TemplateError(`the exponent ${b} is too large`)
      return bounded(a ** b)
  }
  // Python rounds down, JavaScript towards 0.
  const remainder = a % divisor(b)
  const down = remainder !== 0n && remainder < 0n !== b < 0n
  return operator === '%' ? (down ? remainder + b : remainder) : a / b - (down ? 1n : 0n)
}

function operateFloats(operator: string, a: number, b: number): Value {
  switch (operator) {
    case '-':
      return a - b
    case '*':
      return a * b
    case '/':
      return a / divisor(b)
    case '**':
      return a ** b
  }
  const remainder = a % divisor(b)
  const down = remainder !== 0 && remainder < 0 !== b < 0
  return operator === '%' ? (down ? remainder + b : remainder) : Math.floor(a / b)
}
