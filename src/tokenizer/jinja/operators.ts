// What operators of templates do with values, as in Python.
import { add } from './filters.ts'
import { formatPercent } from './format.ts'
import { TemplateError } from './text.ts'
import { compare, contains, equals, isNumeric, numeric, Tuple, typeName, Undefined, type Value } from './values.ts'

/** The longest list or text that one operation may make by repetition, and the longest integer. */
const MAX_REPEATED = 1 << 26
const MAX_BITS = 1 << 14

export function holds(operator: string, left: Value, right: Value): boolean {
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

export function operate(operator: string, left: Value, right: Value): Value {
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
