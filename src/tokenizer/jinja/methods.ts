// The methods of Python's texts, lists, tuples and dicts that a template may call. Those that change a value are refused,
// as in jinja2's immutable sandbox.

import { type ArgumentReader, readArguments, texts } from './arguments.ts'
import { formatFields } from './format.ts'
import { CASED, capitalise, characters, isLower, isUpper, pad, replace, SPACE, strip, TemplateError } from './text.ts'
import { Callable, Dict, equals, type Given, Iterator, iterate, or, Tuple, typeName, type Value } from './values.ts'

type Method<T> = readonly [parameters: readonly string[], call: (self: T, given: ArgumentReader) => Value]
type Methods<T> = Readonly<Record<string, Method<T>>>

const SPLIT_SPACE = new RegExp(`[${SPACE}]+`)
// biome-ignore lint/suspicious/noControlCharactersInRegex: these end lines for Python
const LINE_ENDS = /\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/g

/** Parts between `separator`, from the left or the right, after at most `limit` cuts. */
function split(text: string, separator: string | undefined, limit: number, fromRight: boolean): string[] {
  if (separator === '') throw new TemplateError('empty separator')
  if (separator === undefined) return splitAtSpace(text, limit, fromRight)
  const parts = text.split(separator)
  if (limit < 0 || parts.length <= limit + 1) return parts
  if (fromRight) return [parts.slice(0, parts.length - limit).join(separator), ...parts.slice(parts.length - limit)]
  return [...parts.slice(0, limit), parts.slice(limit).join(separator)]
}

function splitAtSpace(text: string, limit: number, fromRight: boolean): string[] {
  const words: string[] = []
  let rest = strip(text, undefined, fromRight ? 'right' : 'left')
  while (rest !== '' && (limit < 0 || words.length < limit)) {
    const spaces = [...rest.matchAll(new RegExp(SPLIT_SPACE, 'g'))]
    const space = fromRight ? spaces.at(-1) : spaces[0]
    if (space === undefined) break
    const after = space.index + space[0].length
    words.push(fromRight ? rest.slice(after) : rest.slice(0, space.index))
    rest = fromRight ? rest.slice(0, space.index) : rest.slice(after)
  }
  if (rest !== '') words.push(limit < 0 ? strip(rest, undefined) : rest)
  return fromRight ? words.reverse() : words
}

function splitLines(text: string, keepEnds: boolean): string[] {
  const lines: string[] = []
  let start = 0
  for (const match of text.matchAll(LINE_ENDS)) {
    const end = match.index + match[0].length
    lines.push(text.slice(start, keepEnds ? end : match.index))
    start = end
  }
  if (start < text.length) lines.push(text.slice(start))
  return lines
}

function partition(text: string, separator: string | undefined, last: boolean): Tuple {
  if (!separator) throw new TemplateError('empty separator')
  const at = last ? text.lastIndexOf(separator) : text.indexOf(separator)
  if (at === -1) return new Tuple(last ? ['', '', text] : [text, '', ''])
  return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)])
}

/** `str.title`: a capital after everything that is no letter. */
function title(text: string): string {
  let inWord = false
  return characters(text)
    .map((character) => {
      const written = inWord ? character.toLowerCase() : character.toUpperCase()
      inWord = CASED.test(character)
      return written
    })
    .join('')
}

const swapCase = (text: string): string =>
  characters(text)
    .map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))
    .join('')

const every = (pattern: RegExp) => (text: string) => text !== '' && characters(text).every((c) => pattern.test(c))

/** The place of `part` among the characters from `start` to `end`; -1 where it is not. */
function find(text: string, given: ArgumentReader, last: boolean): number {
  const parts = characters(text)
  const [start, end] = bounds(parts.length, given)
  const within = parts.slice(start, end).join('')
  const part = given.requiredText('sub')
  const at = last ? within.lastIndexOf(part) : within.indexOf(part)
  return at === -1 || start > parts.length ? -1 : start + characters(within.slice(0, at)).length
}

const bounds = (length: number, given: ArgumentReader): [number, number] => {
  const bound = (value: number) => (value < 0 ? Math.max(0, length + value) : value)
  return [bound(given.integer('start') ?? 0), bound(given.integer('end') ?? length)]
}

function matchesEnd(text: string, given: ArgumentReader, test: (part: string, end: string) => boolean): boolean {
  const ends = texts(given.value('prefix'))
  if (!ends) throw new TemplateError('a text or a tuple of texts is needed')
  const parts = characters(text)
  const [start, end] = bounds(parts.length, given)
  return start <= parts.length && ends.some((part) => test(parts.slice(start, end).join(''), part))
}

const found = (at: number): Value => {
  if (at === -1) throw new TemplateError('substring not found')
  return BigInt(at)
}

const RANGE = ['sub', 'start', 'end']
const ENDS = ['prefix', 'start', 'end']

const textMethods: Methods<string> = {
  upper: [[], (text) => text.toUpperCase()],
  lower: [[], (text) => text.toLowerCase()],
  title: [[], title],
  capitalize: [[], capitalise],
  swapcase: [[], swapCase],
  strip: [['chars'], (text, given) => strip(text, given.text('chars'))],
  lstrip: [['chars'], (text, given) => strip(text, given.text('chars'), 'left')],
  rstrip: [['chars'], (text, given) => strip(text, given.text('chars'), 'right')],
  removeprefix: [['prefix'], (text, given) => removeEnd(text, given.requiredText('prefix'), true)],
  removesuffix: [['suffix'], (text, given) => removeEnd(text, given.requiredText('suffix'), false)],
  split: [['sep', 'maxsplit'], (text, given) => split(text, given.text('sep'), given.integer('maxsplit') ?? -1, false)],
  rsplit: [['sep', 'maxsplit'], (text, given) => split(text, given.text('sep'), given.integer('maxsplit') ?? -1, true)],
  splitlines: [['keepends'], (text, given) => splitLines(text, given.flag('keepends'))],
  partition: [['sep'], (text, given) => partition(text, given.text('sep'), false)],
  rpartition: [['sep'], (text, given) => partition(text, given.text('sep'), true)],
  replace: [
    ['old', 'new', 'count'],
    (text, given) => replace(text, given.requiredText('old'), given.requiredText('new'), given.integer('count')),
  ],
  join: [['iterable'], (text, given) => join(text, given.value('iterable') ?? [])],
  startswith: [ENDS, (text, given) => matchesEnd(text, given, (part, end) => part.startsWith(end))],
  endswith: [ENDS, (text, given) => matchesEnd(text, given, (part, end) => part.endsWith(end))],
  find: [RANGE, (text, given) => BigInt(find(text, given, false))],
  rfind: [RANGE, (text, given) => BigInt(find(text, given, true))],
  index: [RANGE, (text, given) => found(find(text, given, false))],
  rindex: [RANGE, (text, given) => found(find(text, given, true))],
  count: [['sub'], (text, given) => BigInt(replace(text, given.requiredText('sub'), '\0').split('\0').length - 1)],
  ljust: [['width', 'fill'], (text, given) => pad(text, given.integer('width') ?? 0, given.text('fill'))],
  rjust: [['width', 'fill'], (text, given) => pad(text, given.integer('width') ?? 0, given.text('fill'), 'left')],
  center: [['width', 'fill'], (text, given) => pad(text, given.integer('width') ?? 0, given.text('fill'), 'both')],
  zfill: [['width'], (text, given) => fillZeros(text, given.integer('width') ?? 0)],
  isdigit: [[], every(/[\p{Nd}²³¹⁰-₉]/u)],
  isdecimal: [[], every(/\p{Nd}/u)],
  isnumeric: [[], every(/\p{N}/u)],
  isalpha: [[], every(/\p{L}/u)],
  isalnum: [[], every(/[\p{L}\p{N}]/u)],
  isascii: [[], (text) => characters(text).every((c) => c < '\x80')],
  isspace: [[], every(new RegExp(`[${SPACE}]`))],
  islower: [[], isLower],
  isupper: [[], isUpper],
  istitle: [[], (text) => CASED.test(text) && text === title(text)],
}

const removeEnd = (text: string, end: string, first: boolean): string => {
  if (end === '' || !(first ? text.startsWith(end) : text.endsWith(end))) return text
  return first ? text.slice(end.length) : text.slice(0, -end.length)
}

const fillZeros = (text: string, width: number): string => {
  const sign = /^[+-]/.exec(text)?.[0] ?? ''
  return sign + pad(text.slice(sign.length), width - sign.length, '0', 'left')
}

function join(separator: string, items: Value): string {
  return iterate(items)
    .map((item, i) => {
      if (typeof item === 'string') return item
      throw new TemplateError(`sequence item ${i}: expected str instance, ${typeName(item)} found`)
    })
    .join(separator)
}

const listMethods: Methods<readonly Value[]> = {
  index: [
    ['value'],
    (items, given) => {
      const at = items.findIndex((item) => equals(item, or(given.value('value'), null)))
      if (at === -1) throw new TemplateError('the value is not in the list')
      return BigInt(at)
    },
  ],
  count: [
    ['value'],
    (items, given) => BigInt(items.filter((item) => equals(item, or(given.value('value'), null))).length),
  ],
  copy: [[], (items) => [...items]],
}

const dictMethods: Methods<Dict> = {
  get: [
    ['key', 'default'],
    (dict, given) => or(dict.get(or(given.value('key'), null)), or(given.value('default'), null)),
  ],
  items: [
    [],
    (dict) =>
      new Iterator(
        dict.entries().map((entry) => new Tuple(entry)),
        'dict_items',
      ),
  ],
  keys: [[], (dict) => new Iterator(dict.keys(), 'dict_keys')],
  values: [
    [],
    (dict) =>
      new Iterator(
        dict.entries().map(([, value]) => value),
        'dict_values',
      ),
  ],
  copy: [[], (dict) => new Dict(dict.entries())],
}

const CHANGING: ReadonlySet<string> = new Set([
  ...['append', 'clear', 'extend', 'insert', 'pop', 'popitem', 'remove', 'reverse', 'setdefault', 'sort', 'update'],
])

/** The method `name` of a value, bound to it; undefined where it has none. */
export function methodOf(value: Value, name: string): Callable | undefined {
  const bind = <T>(methods: Methods<T>, self: T): Callable | undefined => {
    if (!Object.hasOwn(methods, name)) return undefined
    const [parameters, call] = methods[name]!
    return builtin(value, name, (given) => call(self, readArguments(name, given, parameters)))
  }
  if (typeof value === 'string')
    return name === 'format' ? builtin(value, name, (given) => formatFields(value, given)) : bind(textMethods, value)
  if (value instanceof Tuple) return name === 'copy' ? undefined : bind(listMethods, value.items)
  if (!Array.isArray(value) && !(value instanceof Dict)) return undefined
  if (
    CHANGING.has(name) &&
    !(value instanceof Dict && ['append', 'extend', 'insert', 'remove', 'sort', 'reverse'].includes(name))
  )
    throw new TemplateError(`'${name}' of a ${typeName(value)} changes it, which templates may not`)
  return Array.isArray(value) ? bind(listMethods, value) : bind(dictMethods, value)
}

const builtin = (of: Value, name: string, call: (given: Given) => Value): Callable =>
  new Callable(`${name} of ${typeName(of)} object`, call, undefined, 'built-in method')
