// Python's values as templates see them, and what Python does with them: truth, equality, order, text, JSON.
// Integers are bigints, so that numbers are floats; a text counts its characters by code point.
import { characters, TemplateError } from './text.ts'

export type Value =
  | string
  | bigint
  | number
  | boolean
  | null
  | Undefined
  | Value[]
  | Tuple
  | Dict
  | Range
  | Iterator
  | Namespace
  | Callable

/** A name or key that is not there: empty as a text and as a list, an error in everything else. */
export class Undefined {
  constructor(readonly problem: string) {}

  fail(): never {
    throw new TemplateError(this.problem)
  }
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** In the order of insertion. 1, 1.0 and true are one key. */
export class Dict {
  readonly #entries = new Map<unknown, readonly [Value, Value]>()

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value)
  }
  get size(): number {
    return this.#entries.size
  }
  get(key: Value): Value | undefined {
    return this.#entries.get(hash(key))?.[1]
  }
  has(key: Value): boolean {
    return this.#entries.has(hash(key))
  }
  set(key: Value, value: Value): void {
    const hashed = hash(key)
    this.#entries.set(hashed, [this.#entries.get(hashed)?.[0] ?? key, value])
  }
  entries(): (readonly [Value, Value])[] {
    return [...this.#entries.values()]
  }
  keys(): Value[] {
    return this.entries().map(([key]) => key)
  }
}

export class Range {
  readonly length: number
  constructor(
    readonly start: bigint,
    readonly stop: bigint,
    readonly step: bigint,
  ) {
    const span = step > 0n ? stop - start : start - stop
    const size = step > 0n ? step : -step
    const length = span <= 0n ? 0n : (span + size - 1n) / size
    if (length > MOST_IN_RANGE) throw new TemplateError(`a range has ${MOST_IN_RANGE} numbers at most`)
    this.length = Number(length)
  }
  items(): bigint[] {
    return Array.from({ length: this.length }, (_, i) => this.start + BigInt(i) * this.step)
  }
}

/** The limit of jinja2's sandbox. */
const MOST_IN_RANGE = 100_000

/** What filters such as `map` return: always true, without a length, and empty once it has been read. */
export class Iterator {
  #items: readonly Value[]
  constructor(
    items: readonly Value[],
    readonly type = 'generator',
  ) {
    this.#items = items
  }
  take(): readonly Value[] {
    const items = this.#items
    // Views of a dict may be read again.
    if (!this.isView) this.#items = []
    return items
  }
  get isView(): boolean {
    return this.type.startsWith('dict_')
  }
  get size(): number {
    return this.#items.length
  }
}

export class Namespace {
  readonly attributes = new Map<string, Value>()
}

export interface Given {
  positional: Value[]
  named: Map<string, Value>
}

export class Callable {
  constructor(
    readonly name: string,
    readonly call: (given: Given) => Value,
    readonly attribute: (name: string) => Value | undefined = () => undefined,
    readonly type = 'function',
  ) {}
}

/** Plain data, such as JSON holds, as template values. */
export function toValue(data: unknown): Value {
  if (data === undefined) return new Undefined('a value is undefined')
  if (typeof data === 'number') return Number.isSafeInteger(data) && !Object.is(data, -0) ? BigInt(data) : data
  if (data === null || typeof data === 'string' || typeof data === 'boolean' || typeof data === 'bigint') return data
  if (Array.isArray(data)) return data.map(toValue)
  if (typeof data === 'object') {
    const defined = Object.entries(data).filter(([, value]) => value !== undefined)
    return new Dict(defined.map(([key, value]) => [key, toValue(value)]))
  }
  throw new TemplateError(`a ${typeof data} cannot be given to a template`)
}

/** `??` for values, of which null is one. */
export const or = (value: Value | undefined, other: Value): Value => (value === undefined ? other : value)

export const isNumeric = (value: Value): value is bigint | number | boolean =>
  typeof value === 'bigint' || typeof value === 'number' || typeof value === 'boolean'

/** A bool as the integer that it is. */
export const numeric = (value: bigint | number | boolean): bigint | number =>
  typeof value === 'boolean' ? BigInt(value) : value

export function typeName(value: Value): string {
  if (value === null) return 'NoneType'
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Tuple) return 'tuple'
  if (value instanceof Dict) return 'dict'
  if (value instanceof Range) return 'range'
  if (value instanceof Namespace) return 'Namespace'
  if (value instanceof Iterator || value instanceof Callable) return value.type
  if (Array.isArray(value)) return 'list'
  return { string: 'str', bigint: 'int', number: 'float', boolean: 'bool' }[
    typeof value as 'string' | 'bigint' | 'number' | 'boolean'
  ]
}

function hash(key: Value): unknown {
  if (typeof key === 'string') return `"${key}`
  if (isNumeric(key)) {
    const number = numeric(key)
    return typeof number === 'number' && Number.isInteger(number) ? BigInt(number) : number
  }
  if (key instanceof Tuple) return `(${key.items.map((item) => String(hash(item))).join('\0')}`
  if (key === null) return null
  throw new TemplateError(`unhashable type: '${typeName(key)}'`)
}

export function isTrue(value: Value): boolean {
  if (value instanceof Undefined) return false
  if (value instanceof Tuple) return value.items.length > 0
  if (value instanceof Dict) return value.size > 0
  if (value instanceof Range) return value.length > 0
  if (value instanceof Iterator) return !value.isView || value.size > 0
  return Array.isArray(value) ? value.length > 0 : Boolean(value)
}

/** What a `for` loop would go through. Throws TemplateError for what it cannot. */
export function iterate(value: Value): readonly Value[] {
  if (typeof value === 'string') return characters(value)
  if (Array.isArray(value)) return value
  if (value instanceof Tuple) return value.items
  if (value instanceof Dict) return value.keys()
  if (value instanceof Range) return value.items()
  if (value instanceof Iterator) return value.take()
  if (value instanceof Undefined) return []
  throw new TemplateError(`'${typeName(value)}' object is not iterable`)
}

export const isIterable = (value: Value): boolean =>
  typeof value === 'string' ||
  Array.isArray(value) ||
  [Tuple, Dict, Range, Iterator, Undefined].some((type) => value instanceof type)

export function lengthOf(value: Value): bigint {
  if (value instanceof Iterator && value.isView) return BigInt(value.size)
  if (!isIterable(value) || value instanceof Iterator)
    throw new TemplateError(`object of type '${typeName(value)}' has no len()`)
  return BigInt(iterate(value).length)
}

const sameItems = (a: readonly Value[], b: readonly Value[]): boolean =>
  a.length === b.length && a.every((item, i) => equals(item, b[i]!))

export function equals(a: Value, b: Value): boolean {
  if (isNumeric(a) && isNumeric(b)) return numeric(a) <= numeric(b) && numeric(a) >= numeric(b)
  if (a instanceof Undefined) return b instanceof Undefined
  if (Array.isArray(a)) return Array.isArray(b) && sameItems(a, b)
  if (a instanceof Tuple) return b instanceof Tuple && sameItems(a.items, b.items)
  if (a instanceof Dict) {
    if (!(b instanceof Dict) || a.size !== b.size) return false
    return a.entries().every(([key, value]) => b.has(key) && equals(value, b.get(key)!))
  }
  if (a instanceof Range) return b instanceof Range && sameItems(a.items(), b.items())
  return a === b
}

/** Below 0, 0 or above 0. `operator` is for the error where the two have no order. */
export function compare(a: Value, b: Value, operator = '<'): number {
  if (isNumeric(a) && isNumeric(b)) {
    const [x, y] = [numeric(a), numeric(b)]
    return x < y ? -1 : x > y ? 1 : x <= y ? 0 : Number.NaN
  }
  if (typeof a === 'string' && typeof b === 'string') return compareTexts(a, b)
  const lists =
    Array.isArray(a) && Array.isArray(b) ? [a, b] : a instanceof Tuple && b instanceof Tuple ? [a.items, b.items] : []
  const [x, y] = lists
  if (x && y) {
    const at = x.findIndex((item, i) => i >= y.length || !equals(item, y[i]!))
    if (at === -1) return x.length - y.length
    return at >= y.length ? 1 : compare(x[at]!, y[at]!, operator)
  }
  for (const value of [a, b]) if (value instanceof Undefined) value.fail()
  throw new TemplateError(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`)
}

/** By code point, which differs from JavaScript's order beyond U+FFFF. */
function compareTexts(a: string, b: string): number {
  const [x, y] = [characters(a), characters(b)]
  for (let i = 0; i < Math.min(x.length, y.length); i++)
    if (x[i] !== y[i]) return x[i]!.codePointAt(0)! - y[i]!.codePointAt(0)!
  return x.length - y.length
}

export function contains(container: Value, item: Value): boolean {
  if (typeof container === 'string') {
    if (typeof item === 'string') return container.includes(item)
    throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`)
  }
  if (container instanceof Dict) return container.has(item)
  if (!isIterable(container)) throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`)
  return iterate(container).some((other) => equals(other, item))
}

/** Python's `repr` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf'
  const [digits, exponent] = value.toExponential().split('e') as [string, string]
  const power = Number(exponent)
  if (power < -4 || power >= 16) return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
  if (Object.is(value, -0)) return '-0.0'
  const text = power < 0 ? value.toFixed(Math.max(0, digits.replace(/[-.]/g, '').length - 1 - power)) : String(value)
  return text.includes('.') ? text : `${text}.0`
}

/** `str(value)`: what is printed. */
export function textOf(value: Value): string {
  if (typeof value === 'string') return value
  return value instanceof Undefined ? '' : repr(value)
}

export function repr(value: Value): string {
  if (typeof value === 'string') return quote(value)
  if (typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return floatText(value)
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (value === null) return 'None'
  if (value instanceof Undefined) return 'Undefined'
  const list = (items: readonly Value[]) => items.map(repr).join(', ')
  if (Array.isArray(value)) return `[${list(value)}]`
  if (value instanceof Tuple) return value.items.length === 1 ? `(${list(value.items)},)` : `(${list(value.items)})`
  if (value instanceof Dict) {
    return `{${value
      .entries()
      .map(([key, entry]) => `${repr(key)}: ${repr(entry)}`)
      .join(', ')}}`
  }
  if (value instanceof Range) {
    const bounds = value.step === 1n ? [value.start, value.stop] : [value.start, value.stop, value.step]
    return `range(${bounds.join(', ')})`
  }
  if (value instanceof Iterator && value.isView) return `${value.type}([${list(value.take())}])`
  if (value instanceof Callable) return `<${value.type} ${value.name}>`
  return `<${typeName(value)} object>`
}

const ESCAPES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' }
/** But for U+FDD0, with which unmask marks text (`Tokenizer.guard`). */
const UNPRINTABLE = /(?!\ufdd0)[\\\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'"
  const escaped = text.replace(UNPRINTABLE, (character) => {
    const code = character.codePointAt(0)!
    const hex = (letter: string, digits: number) => `\\${letter}${code.toString(16).padStart(digits, '0')}`
    return ESCAPES[character] ?? (code < 0x100 ? hex('x', 2) : code < 0x10000 ? hex('u', 4) : hex('U', 8))
  })
  return mark + (mark === "'" ? escaped.replaceAll("'", "\\'") : escaped) + mark
}

export interface JsonOptions {
  ensureAscii: boolean
  /** What one level is indented by; undefined for a single line. */
  indent: string | undefined
  separators: readonly [item: string, key: string]
  sortKeys: boolean
}

/** `json.dumps`. Throws TemplateError for what is not JSON. */
export function toJson(value: Value, options: JsonOptions, padding = '\n'): string {
  const { indent, separators } = options
  if (typeof value === 'string') return jsonText(value, options)
  if (value === null) return 'null'
  if (typeof value === 'boolean') return String(value)
  if (typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return jsonFloat(value)
  const inner = indent === undefined ? '' : padding + indent
  const wrap = (open: string, close: string, parts: string[]): string => {
    if (parts.length === 0) return open + close
    return open + inner + parts.join(separators[0] + inner) + (indent === undefined ? '' : padding) + close
  }
  const nested = (item: Value) => toJson(item, options, indent === undefined ? '' : inner)
  if (Array.isArray(value)) return wrap('[', ']', value.map(nested))
  if (value instanceof Tuple) return wrap('[', ']', value.items.map(nested))
  if (value instanceof Dict) {
    const entries = value.entries()
    if (options.sortKeys) entries.sort(([a], [b]) => compare(a, b))
    return wrap(
      '{',
      '}',
      entries.map(([key, entry]) => jsonText(jsonKey(key), options) + separators[1] + nested(entry)),
    )
  }
  throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`)
}

function jsonKey(key: Value): string {
  if (typeof key === 'string') return key
  if (typeof key === 'number') return jsonFloat(key)
  if (key === null) return 'null'
  if (isNumeric(key)) return String(key)
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`)
}

const jsonFloat = (value: number): string =>
  Number.isFinite(value) ? floatText(value) : Number.isNaN(value) ? 'NaN' : value < 0 ? '-Infinity' : 'Infinity'

const unicodeEscape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`

function jsonText(text: string, { ensureAscii }: JsonOptions): string {
  const quoted = JSON.stringify(text)
  return ensureAscii ? quoted.replace(/[\x7f-\ufdcf\ufdd1-\uffff]/g, unicodeEscape) : quoted
}
