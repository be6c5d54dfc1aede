// The values of expressions in a scope. Follows the code that jinja2 compiles templates to.
import { filterOf } from './filters.ts'
import { getAttribute, getItem, getSlice } from './lookup.ts'
import { holds, operate } from './operators.ts'
import type { Scope } from './scope.ts'
import { testOf } from './tests.ts'
import { TemplateError } from './text.ts'
import type { Arguments, Expression } from './tree.ts'
import {
  Callable,
  Dict,
  type Given,
  isNumeric,
  isTrue,
  iterate,
  numeric,
  or,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
} from './values.ts'

/** Throws TemplateError. */
export function evaluate(expression: Expression, scope: Scope): Value {
  scope.count()
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

export function evaluateArguments(given: Arguments, scope: Scope): Given {
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

export function callValue(called: Value, given: Given): Value {
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

/** The name under which a filter block's filter finds its text; no template can write it. */
export const FILTERED = ' filtered'

const isTestName = (name: string) => name === 'filter' || name === 'test' || testOf(name) !== undefined
