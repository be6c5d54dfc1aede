// jinja2's tests, such as `is defined`. Each is given what stands before `is`, then its arguments.
import { isLower, isUpper, TemplateError } from './text.ts'
import {
  Callable,
  compare,
  contains,
  Dict,
  equals,
  Iterator,
  isIterable,
  isNumeric,
  numeric,
  textOf,
  typeName,
  Undefined,
  type Value,
} from './values.ts'

type Test = (value: Value, other: Value) => boolean

const remainder = (value: Value, by: bigint): boolean => {
  if (value instanceof Undefined) value.fail()
  if (!isNumeric(value)) throw new TemplateError(`a number is needed, not ${typeName(value)}`)
  const number = numeric(value)
  return typeof number === 'bigint' ? number % by === 0n : number % Number(by) === 0
}

const order =
  (operator: string, holds: (order: number) => boolean): Test =>
  (value, other) =>
    holds(compare(value, other, operator))

const byName: Readonly<Record<string, Test>> = {
  defined: (value) => !(value instanceof Undefined),
  undefined: (value) => value instanceof Undefined,
  none: (value) => value === null,
  boolean: (value) => typeof value === 'boolean',
  true: (value) => value === true,
  false: (value) => value === false,
  integer: (value) => typeof value === 'bigint',
  float: (value) => typeof value === 'number',
  number: isNumeric,
  string: (value) => typeof value === 'string',
  mapping: (value) => value instanceof Dict,
  iterable: isIterable,
  sequence: (value) => isIterable(value) && !(value instanceof Iterator),
  callable: (value) => value instanceof Callable,
  escaped: () => false,
  lower: (value) => isLower(textOf(value)),
  upper: (value) => isUpper(textOf(value)),
  odd: (value) => !remainder(value, 2n),
  even: (value) => remainder(value, 2n),
  divisibleby: (value, by) => {
    if (typeof by !== 'bigint' || by === 0n) throw new TemplateError('divisibleby needs an integer other than 0')
    return remainder(value, by)
  },
  eq: equals,
  ne: (value, other) => !equals(value, other),
  lt: order('<', (o) => o < 0),
  le: order('<=', (o) => o <= 0),
  gt: order('>', (o) => o > 0),
  ge: order('>=', (o) => o >= 0),
  in: (value, container) => contains(container, value),
  sameas: (value, other) => value === other,
}

const ALIASES: Readonly<Record<string, string>> = {
  ...{ equalto: 'eq', '==': 'eq', '!=': 'ne', '<': 'lt', lessthan: 'lt', '<=': 'le' },
  ...{ '>': 'gt', greaterthan: 'gt', '>=': 'ge' },
}

export function testOf(name: string): Test | undefined {
  const own = Object.hasOwn(ALIASES, name) ? ALIASES[name]! : name
  return Object.hasOwn(byName, own) ? byName[own] : undefined
}
