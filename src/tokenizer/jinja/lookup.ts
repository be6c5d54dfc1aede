// `value.name` and `value[key]`, as jinja2 looks them up: one prefers the attribute, the other the item.

import { methodOf } from './methods.ts'
import { characters, TemplateError } from './text.ts'
import {
  Callable,
  Dict,
  Iterator,
  isIterable,
  iterate,
  Namespace,
  or,
  repr,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts'

const isSequence = (value: Value): boolean =>
  isIterable(value) && !(value instanceof Dict || value instanceof Iterator || value instanceof Undefined)

/** The items of a sequence, or the characters of a text. */
const itemsOf = (value: Value): readonly Value[] => (typeof value === 'string' ? characters(value) : iterate(value))

function itemOf(value: Value, key: Value): Value | undefined {
  if (value instanceof Dict) return value.has(key) ? value.get(key) : undefined
  if (!isSequence(value) || (typeof key !== 'bigint' && typeof key !== 'boolean')) return undefined
  return itemsOf(value).at(Number(key))
}

function attribute(value: Value, name: string): Value | undefined {
  // Python's internals, which the sandbox keeps from templates.
  if (name.startsWith('__')) return new Undefined(`access to attribute '${name}' is unsafe`)
  if (value instanceof Namespace) return value.attributes.get(name)
  if (value instanceof Callable) return value.attribute(name)
  return methodOf(value, name)
}

const missing = (value: Value, key: Value): Undefined => {
  if (value === null) return new Undefined(`'None' has no attribute ${repr(key)}`)
  const what = typeof key === 'string' ? `attribute ${repr(key)}` : `element ${repr(key)}`
  return new Undefined(`'${typeName(value)} object' has no ${what}`)
}

/** `value.name`. */
export function getAttribute(value: Value, name: string): Value {
  if (value instanceof Undefined) return value.fail()
  const found = attribute(value, name)
  return or(found, or(itemOf(value, name), missing(value, name)))
}

/** `value[key]`. */
export function getItem(value: Value, key: Value): Value {
  if (value instanceof Undefined) return value.fail()
  const found = typeof key === 'string' ? attribute(value, key) : undefined
  return or(itemOf(value, key), or(found, missing(value, key)))
}

/** `value[start:stop:step]`. */
export function getSlice(value: Value, bounds: readonly Value[]): Value {
  if (value instanceof Undefined) return value.fail()
  if (!isSequence(value)) return missing(value, 'slice')
  const items = itemsOf(value)
  const [start, stop, step = 1] = bounds.map((bound) => {
    if (bound === null) return undefined
    if (typeof bound === 'bigint' || typeof bound === 'boolean') return Number(bound)
    throw new TemplateError('slice indices must be integers or None')
  })
  if (step === 0) throw new TemplateError('slice step cannot be zero')
  const clamp = (bound: number): number => {
    const at = bound < 0 ? bound + items.length : bound
    return step > 0 ? Math.min(Math.max(at, 0), items.length) : Math.min(Math.max(at, -1), items.length - 1)
  }
  const from = start === undefined ? (step > 0 ? 0 : items.length - 1) : clamp(start)
  const to = stop === undefined ? (step > 0 ? items.length : -1) : clamp(stop)
  const part: Value[] = []
  for (let i = from; step > 0 ? i < to : i > to; i += step) part.push(items[i]!)
  if (typeof value === 'string') return part.join('')
  return value instanceof Tuple ? new Tuple(part) : part
}
