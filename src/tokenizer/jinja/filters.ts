// jinja2's filters, but for those that write HTML, and transformers' `tojson`.

import { type ArgumentReader, readArguments } from './arguments.ts'
import { formatPercent } from './format.ts'
import { getItem } from './lookup.ts'
import { methodOf } from './methods.ts'
import { testOf } from './tests.ts'
import { capitalise, characters, pad, replace, strip, TemplateError } from './text.ts'
import {
  compare,
  Dict,
  equals,
  type Given,
  Iterator,
  isNumeric,
  isTrue,
  iterate,
  lengthOf,
  numeric,
  or,
  Tuple,
  textOf,
  toJson,
  typeName,
  Undefined,
  type Value,
} from './values.ts'

type Filter = readonly [parameters: readonly string[], apply: (value: Value, given: ArgumentReader) => Value]

/** The value of an attribute such as `function.name` or `tags.0`. */
function attributeOf(value: Value, path: Value | undefined): Value {
  if (path === undefined || path === null) return value
  const parts = typeof path === 'string' ? path.split('.') : [path]
  return parts.reduce<Value>(
    (item, part) => getItem(item, typeof part === 'string' && /^\d+$/.test(part) ? BigInt(part) : part),
    value,
  )
}

const ignoringCase = (value: Value): Value => (typeof value === 'string' ? value.toLowerCase() : value)

/** What items are ordered or distinguished by: an attribute, letter case ignored unless it counts. */
const keyOf = (given: ArgumentReader) => (item: Value) => {
  const key = attributeOf(item, given.value('attribute'))
  return given.flag('case_sensitive') ? key : ignoringCase(key)
}

/** Stable in both directions, as Python's. */
function sorted<T>(items: readonly T[], keys: (item: T) => readonly Value[], reverse: boolean): T[] {
  const decorated = items.map((item) => ({ item, key: new Tuple(keys(item)) }))
  decorated.sort((a, b) => (reverse ? compare(b.key, a.key) : compare(a.key, b.key)))
  return decorated.map(({ item }) => item)
}

function sort(value: Value, given: ArgumentReader): Value {
  const attribute = given.value('attribute')
  const paths = typeof attribute === 'string' ? attribute.split(',') : [attribute]
  const key = (item: Value) => (given.flag('case_sensitive') ? item : ignoringCase(item))
  return sorted(iterate(value), (item) => paths.map((path) => key(attributeOf(item, path))), given.flag('reverse'))
}

function sortDict(value: Value, given: ArgumentReader): Value {
  if (!(value instanceof Dict)) throw new TemplateError(`dictsort needs a dict, not ${typeName(value)}`)
  const by = given.text('by') ?? 'key'
  if (by !== 'key' && by !== 'value') throw new TemplateError('dictsort sorts by "key" or "value"')
  const key = (entry: readonly [Value, Value]) => {
    const sortedBy = entry[by === 'key' ? 0 : 1]
    return [given.flag('case_sensitive') ? sortedBy : ignoringCase(sortedBy)]
  }
  return sorted(value.entries(), key, given.flag('reverse')).map((entry) => new Tuple(entry))
}

function extreme(sign: 1 | -1): Filter {
  return [
    ['case_sensitive', 'attribute'],
    (value, given) => {
      const [first, ...rest] = iterate(value)
      if (first === undefined) return new Undefined('No aggregated item, sequence was empty.')
      const key = keyOf(given)
      return rest.reduce((best, item) => (sign * compare(key(item), key(best)) > 0 ? item : best), first)
    },
  ]
}

function groupBy(value: Value, given: ArgumentReader): Value {
  const key = (item: Value): Value => {
    const found = attributeOf(item, given.value('attribute'))
    return found instanceof Undefined ? or(given.value('default'), found) : found
  }
  const compared = (item: Value) => (given.flag('case_sensitive') ? key(item) : ignoringCase(key(item)))
  const groups: { key: Value; items: Value[] }[] = []
  for (const item of sorted(iterate(value), (item) => [compared(item)], false)) {
    const last = groups.at(-1)
    if (last && equals(compared(last.items[0]!), compared(item))) last.items.push(item)
    else groups.push({ key: key(item), items: [item] })
  }
  return groups.map(({ key, items }) => new Tuple([key, items]))
}

function batch(value: Value, given: ArgumentReader): Value {
  const size = given.integer('linecount') ?? 1
  if (size < 1) throw new TemplateError('batch needs a size above 0')
  const fill = given.value('fill_with') ?? null
  const items = iterate(value)
  const rows: Value[][] = []
  for (let i = 0; i < items.length; i += size) rows.push(items.slice(i, i + size))
  const last = rows.at(-1)
  if (last && fill !== null) while (last.length < Math.min(size, MOST_FILLED)) last.push(fill)
  return new Iterator(rows)
}

const MOST_FILLED = 100_000

function slice(value: Value, given: ArgumentReader): Value {
  const count = given.integer('slices') ?? 1
  if (count < 1 || count > MOST_FILLED) throw new TemplateError(`slice needs a number from 1 to ${MOST_FILLED}`)
  const fill = given.value('fill_with') ?? null
  const items = iterate(value)
  const [size, longer] = [Math.floor(items.length / count), items.length % count]
  return new Iterator(
    Array.from({ length: count }, (_, i) => {
      const start = i * size + Math.min(i, longer)
      const part = items.slice(start, start + size + (i < longer ? 1 : 0))
      return fill !== null && i >= longer ? [...part, fill] : part
    }),
  )
}

function unique(value: Value, given: ArgumentReader): Value {
  const seen = new Dict()
  return new Iterator(
    iterate(value).filter((item) => {
      const key = keyOf(given)(item)
      const known = seen.has(key)
      seen.set(key, true)
      return !known
    }),
  )
}

const WHOLE = /^[+-]?\d+(?:_\d+)*$/

function toInteger(value: Value, given: ArgumentReader): Value {
  if (value instanceof Undefined) value.fail()
  if (typeof value === 'string') {
    const text = strip(value, undefined)
    const base = given.integer('base') ?? 10
    if (base === 10 ? WHOLE.test(text) : /^(?:0[xob])?[\da-z]+$/i.test(text)) {
      if (base === 10) return BigInt(text.replaceAll('_', '').replace('+', ''))
      const number = Number.parseInt(text.replace(/^0[xob]/i, ''), base)
      if (!Number.isNaN(number)) return BigInt(number)
    }
  }
  const number = parseFloatText(value)
  if (number === undefined || !Number.isFinite(number)) return or(given.value('default'), 0n)
  return typeof value === 'bigint' ? value : BigInt(Math.trunc(number))
}

/** `float(value)`; undefined where Python has none. */
function parseFloatText(value: Value): number | undefined {
  if (value instanceof Undefined) value.fail()
  if (isNumeric(value)) return Number(numeric(value))
  if (typeof value !== 'string') return undefined
  const text = strip(value, undefined).replace(/(?<=\d)_(?=\d)/g, '')
  if (/^[+-]?(?:inf|infinity|nan)$/i.test(text))
    return /nan/i.test(text) ? Number.NaN : text.startsWith('-') ? -Infinity : Infinity
  return /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(text) ? Number(text) : undefined
}

function round(value: Value, given: ArgumentReader): Value {
  if (!isNumeric(value)) throw new TemplateError(`round needs a number, not ${typeName(value)}`)
  const precision = given.integer('precision') ?? 0
  const method = given.text('method') ?? 'common'
  const number = numeric(value)
  const scale = 10 ** precision
  if (method === 'ceil') return Math.ceil(Number(number) * scale) / scale
  if (method === 'floor') return Math.floor(Number(number) * scale) / scale
  if (method !== 'common') throw new TemplateError('the method of round is common, ceil or floor')
  if (typeof number === 'bigint') return number
  if (precision > 0) return Number(number.toFixed(Math.min(100, precision)))
  // Halves go to the even neighbour.
  const scaled = number * scale
  const floor = Math.floor(scaled)
  const up = scaled - floor > 0.5 || (scaled - floor === 0.5 && floor % 2 !== 0)
  return (floor + (up ? 1 : 0)) / scale
}

function indent(value: Value, given: ArgumentReader): Value {
  const width = given.value('width') ?? 4n
  const by = typeof width === 'string' ? width : pad('', given.integer('width') ?? 4)
  const lines = textOf(value).split('\n')
  if (given.flag('blank')) return (given.flag('first') ? by : '') + lines.join(`\n${by}`)
  return lines
    .map((line, i) => (i === 0 ? (given.flag('first') ? by : '') + line : line === '' ? line : by + line))
    .join('\n')
}

function truncate(value: Value, given: ArgumentReader): Value {
  const length = given.integer('length') ?? 255
  const end = given.text('end') ?? '...'
  const parts = characters(textOf(value))
  if (parts.length <= length + (given.integer('leeway') ?? 5)) return parts.join('')
  const cut = parts.slice(0, Math.max(0, length - characters(end).length)).join('')
  const space = cut.lastIndexOf(' ')
  return (given.flag('killwords') || space === -1 ? cut : cut.slice(0, space)) + end
}

const TITLE_WORDS = /([-\s({[<]+)/

const titleWords = (text: string): string =>
  text
    .split(TITLE_WORDS)
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1).toLowerCase())
    .join('')

const HTML: Readonly<Record<string, string>> = {
  ...{ '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' },
}

function json(value: Value, given: ArgumentReader): Value {
  const width = given.value('indent')
  const isIndented = width !== undefined && width !== null
  const separators = given.value('separators')
  const [item, key] = separators === undefined || separators === null ? [] : iterate(separators)
  if (separators && (typeof item !== 'string' || typeof key !== 'string'))
    throw new TemplateError('the separators of tojson are two texts')
  return toJson(value, {
    ensureAscii: given.flag('ensure_ascii'),
    indent: !isIndented ? undefined : typeof width === 'string' ? width : pad('', given.integer('indent') ?? 0),
    separators: [(item as string) ?? (isIndented ? ',' : ', '), (key as string) ?? ': '],
    sortKeys: given.flag('sort_keys'),
  })
}

function firstOf(value: Value): Value {
  return or(iterate(value)[0], new Undefined('No first item, sequence was empty.'))
}

function lastOf(value: Value): Value {
  if (value instanceof Iterator && !value.isView) throw new TemplateError(`'${value.type}' object is not reversible`)
  return or(iterate(value).at(-1), new Undefined('No last item, sequence was empty.'))
}

function reversed(value: Value): Value {
  if (typeof value === 'string') return characters(value).toReversed().join('')
  return new Iterator([...iterate(value)].reverse(), 'reversed')
}

function absolute(value: Value): Value {
  if (value instanceof Undefined) value.fail()
  if (!isNumeric(value)) throw new TemplateError(`bad operand type for abs(): '${typeName(value)}'`)
  const number = numeric(value)
  return typeof number === 'bigint' ? (number < 0n ? -number : number) : Math.abs(number)
}

function sum(value: Value, given: ArgumentReader): Value {
  return iterate(value).reduce<Value>(
    (total, item) => add(total, attributeOf(item, given.value('attribute'))),
    or(given.value('start'), 0n),
  )
}

/** `a + b` of numbers, texts, lists and tuples. */
export function add(a: Value, b: Value): Value {
  for (const value of [a, b]) if (value instanceof Undefined) value.fail()
  if (isNumeric(a) && isNumeric(b)) {
    const [x, y] = [numeric(a), numeric(b)]
    return typeof x === 'bigint' && typeof y === 'bigint' ? x + y : Number(x) + Number(y)
  }
  if (typeof a === 'string' && typeof b === 'string') return a + b
  if (Array.isArray(a) && Array.isArray(b)) return [...a, ...b]
  if (a instanceof Tuple && b instanceof Tuple) return new Tuple([...a.items, ...b.items])
  if (typeof a === 'string') throw new TemplateError(`can only concatenate str (not "${typeName(b)}") to str`)
  throw new TemplateError(`unsupported operand types for +: '${typeName(a)}' and '${typeName(b)}'`)
}

function items(value: Value): Value {
  if (value instanceof Undefined) return new Iterator([])
  if (!(value instanceof Dict)) throw new TemplateError('Can only get item pairs from a mapping.')
  return new Iterator(value.entries().map((entry) => new Tuple(entry)))
}

function join(value: Value, given: ArgumentReader): Value {
  const separator = textOf(given.value('d') ?? '')
  return iterate(value)
    .map((item) => textOf(attributeOf(item, given.value('attribute'))))
    .join(separator)
}

function defaultTo(value: Value, given: ArgumentReader): Value {
  const isMissing = value instanceof Undefined || (given.flag('boolean') && !isTrue(value))
  return isMissing ? or(given.value('default_value'), '') : value
}

const onText = (apply: (text: string) => Value): Filter => [[], (value) => apply(textOf(value))]

const byName: Readonly<Record<string, Filter>> = {
  abs: [[], absolute],
  attr: [['name'], (value, given) => methodOf(value, given.requiredText('name')) ?? new Undefined('no such attribute')],
  batch: [['linecount', 'fill_with'], batch],
  capitalize: onText(capitalise),
  center: [['width'], (value, given) => pad(textOf(value), given.integer('width') ?? 80, ' ', 'both')],
  default: [['default_value', 'boolean'], defaultTo],
  dictsort: [['case_sensitive', 'by', 'reverse'], sortDict],
  escape: onText((text) => text.replace(/[&<>'"]/g, (character) => HTML[character]!)),
  first: [[], firstOf],
  float: [['default'], (value, given) => parseFloatText(value) ?? or(given.value('default'), 0)],
  groupby: [['attribute', 'default', 'case_sensitive'], groupBy],
  indent: [['width', 'first', 'blank'], indent],
  int: [['default', 'base'], toInteger],
  items: [[], items],
  join: [['d', 'attribute'], join],
  last: [[], lastOf],
  length: [[], lengthOf],
  list: [[], (value) => [...iterate(value)]],
  lower: onText((text) => text.toLowerCase()),
  max: extreme(1),
  min: extreme(-1),
  replace: [
    ['old', 'new', 'count'],
    (value, given) =>
      replace(textOf(value), given.requiredText('old'), given.requiredText('new'), given.integer('count')),
  ],
  reverse: [[], reversed],
  round: [['precision', 'method'], round],
  safe: [[], (value) => textOf(value)],
  slice: [['slices', 'fill_with'], slice],
  sort: [['reverse', 'case_sensitive', 'attribute'], sort],
  string: onText((text) => text),
  sum: [['attribute', 'start'], sum],
  title: onText(titleWords),
  tojson: [['ensure_ascii', 'indent', 'separators', 'sort_keys'], json],
  trim: [['chars'], (value, given) => strip(textOf(value), given.text('chars'))],
  truncate: [['length', 'killwords', 'end', 'leeway'], truncate],
  unique: [['case_sensitive', 'attribute'], unique],
  upper: onText((text) => text.toUpperCase()),
  wordcount: onText((text) => BigInt(text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)),
}

const ALIASES: Readonly<Record<string, string>> = { count: 'length', d: 'default', e: 'escape' }

/** Those that read their arguments themselves: the first one names a filter, a test or an attribute. */
const higher: Readonly<Record<string, (value: Value, given: Given) => Value>> = {
  format: (value, { positional, named }) => {
    if (positional.length > 0 && named.size > 0)
      throw new TemplateError('format takes positional or named arguments, not both')
    const values = named.size > 0 ? new Dict(named) : new Tuple(positional)
    return formatPercent(textOf(value), values)
  },
  map: (value, given) => {
    const { positional, named } = given
    if (positional.length === 0 && named.has('attribute')) {
      const reader = readArguments('map', given, ['attribute', 'default'])
      return new Iterator(
        iterate(value).map((item) => {
          const found = attributeOf(item, reader.value('attribute'))
          return found instanceof Undefined ? (reader.value('default') ?? found) : found
        }),
      )
    }
    const [name, ...rest] = positional
    if (typeof name !== 'string') throw new TemplateError('map needs the name of a filter, or an attribute')
    const filter = filterOf(name)
    if (!filter) throw new TemplateError(`No filter named '${name}'.`)
    return new Iterator(iterate(value).map((item) => filter(item, { positional: rest, named })))
  },
  select: (value, given) => pick(value, given, false, true),
  reject: (value, given) => pick(value, given, false, false),
  selectattr: (value, given) => pick(value, given, true, true),
  rejectattr: (value, given) => pick(value, given, true, false),
}

function pick(value: Value, { positional }: Given, byAttribute: boolean, wanted: boolean): Value {
  const rest = [...positional]
  const attribute = byAttribute ? rest.shift() : undefined
  if (byAttribute && attribute === undefined) throw new TemplateError('Missing parameter for attribute name')
  const [name, other = null] = rest
  const test = name === undefined ? isTrue : testOf(textOf(name))
  if (!test) throw new TemplateError(`No test named '${textOf(name!)}'.`)
  return new Iterator(iterate(value).filter((item) => test(attributeOf(item, attribute), other) === wanted))
}

/** A filter by its name; undefined where there is none. */
export function filterOf(name: string): ((value: Value, given: Given) => Value) | undefined {
  if (Object.hasOwn(higher, name)) return higher[name]
  const own = Object.hasOwn(ALIASES, name) ? ALIASES[name]! : name
  if (!Object.hasOwn(byName, own)) return undefined
  const [parameters, apply] = byName[own]!
  return (value, given) => apply(value, readArguments(name, given, parameters))
}
