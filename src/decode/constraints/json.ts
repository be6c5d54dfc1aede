// JSON values as expressions: strings, numbers with bounds, anything. Knows nothing about schemas.
//
// What is written is compact JSON with, where a model wants it, one space behind a colon or a comma.
import {
  ANY_CHARACTER,
  type AutomatonState,
  both,
  charClass,
  charSet,
  choice,
  type Expression,
  empty,
  intersect,
  nothing,
  optional,
  repeat,
  rule,
  sequence,
  text,
} from './expression.ts'

const space = optional(text(' '))
export const comma = sequence(text(','), space)
export const colon = sequence(text(':'), space)

/** Characters that stand for themselves in a JSON string. */
const RAW: readonly number[] = intersect([0x20, 0x21, 0x23, 0x5b, 0x5d, 0x10ffff], ANY_CHARACTER)

/** A character in the one way in which `JSON.stringify` writes it. */
export function jsonCharacter(ranges: readonly number[]): Expression {
  const options: Expression[] = [charClass(intersect(ranges, RAW))]
  const special = intersect(ranges, [0, 0x1f, 0x22, 0x22, 0x5c, 0x5c])
  for (let i = 0; i < special.length; i += 2)
    for (let code = special[i]; code <= special[i + 1]; code++)
      options.push(text(JSON.stringify(String.fromCharCode(code)).slice(1, -1)))
  return choice(...options)
}

const hex = charSet('0-9', 'a-f', 'A-F')

/** A character in any of the ways in which JSON can write it. */
const anyCharacter = choice(
  charClass(RAW),
  sequence(
    text('\\'),
    choice(
      charSet('"\\/bfnrt'),
      sequence(
        text('u'),
        choice(
          sequence(charSet('0-9', 'a-c', 'A-C', 'e-f', 'E-F'), hex, hex, hex),
          sequence(charSet('dD'), charSet('0-7'), hex, hex),
          sequence(
            charSet('dD'),
            charSet('89abAB'),
            hex,
            hex,
            text('\\u'),
            charSet('dD'),
            charSet('c-f', 'C-F'),
            hex,
            hex,
          ),
        ),
      ),
    ),
  ),
)

export const quoted = (content: Expression) => sequence(text('"'), content, text('"'))

/** Characters between quotes, from `min` to `max` code points. */
export const stringContent = (min: number, max: number) => repeat(anyCharacter, min, max)

/** As `stringContent`, each character in one way only. */
export const canonicalContent = (min: number, max: number) => repeat(jsonCharacter(ANY_CHARACTER), min, max)

const digit = charSet('0-9')

/** Most digits before the point: a double holds integers of that many digits exactly. */
const DIGITS = 15
const MOST = 10n ** BigInt(DIGITS) - 1n

/** Numbers without bounds: short enough to be finite. */
const anyNumber = sequence(
  optional(text('-')),
  choice(text('0'), sequence(charSet('1-9'), repeat(digit, 0, DIGITS - 1))),
  optional(sequence(text('.'), repeat(digit, 1, DIGITS))),
  optional(sequence(charSet('eE'), optional(charSet('+', '-')), repeat(digit, 1, 2))),
)

/** Rules that the others call: any JSON value. */
export const jsonRules: ReadonlyMap<string, Expression> = new Map([
  ['string', quoted(stringContent(0, Number.POSITIVE_INFINITY))],
  ['number', anyNumber],
  ['object', members(sequence(rule('string'), colon, rule('value')), 0, Number.POSITIVE_INFINITY)],
  ['array', sequence(text('['), list(rule('value'), 0, Number.POSITIVE_INFINITY), text(']'))],
  [
    'value',
    choice(rule('object'), rule('array'), rule('string'), rule('number'), text('true'), text('false'), text('null')),
  ],
])

/** `min` to `max` items with commas between. */
export function list(item: Expression, min: number, max: number): Expression {
  if (max < 1) return empty()
  const some = sequence(item, repeat(sequence(comma, item), Math.max(0, min - 1), max - 1))
  return min === 0 ? optional(some) : some
}

function members(member: Expression, min: number, max: number): Expression {
  return sequence(text('{'), list(member, min, max), text('}'))
}

/** Bounds of a number; undefined where there is none. */
export interface Bounds {
  low?: number
  lowExclusive?: boolean
  high?: number
  highExclusive?: boolean
}

/** Integers within bounds that are multiples of `multipleOf` (a whole number), without exponent or point. */
export function integer({ low, lowExclusive, high, highExclusive }: Bounds, multipleOf = 1): Expression {
  let from = low === undefined ? -MOST : toBigInt(Math.ceil(low))
  let to = high === undefined ? MOST : toBigInt(Math.floor(high))
  if (lowExclusive && low !== undefined && Number.isInteger(low)) from += 1n
  if (highExclusive && high !== undefined && Number.isInteger(high)) to -= 1n
  const options: Expression[] = []
  if (to >= 0n) options.push(naturals(from > 0n ? from : 0n, to))
  if (from < 0n) options.push(sequence(text('-'), naturals(to < 0n ? -to : 1n, -from)))
  const range = choice(...options)
  return multipleOf === 1 ? range : both(range, multiples(multipleOf))
}

/** Clamped to the digits that are written. */
function toBigInt(value: number): bigint {
  if (value >= Number(MOST)) return value > Number(MOST) ? MOST + 1n : MOST
  if (value <= -Number(MOST)) return value < -Number(MOST) ? -MOST - 1n : -MOST
  return BigInt(value)
}

/** Whole numbers from `low` to `high`, at least 0 and at most MOST, without leading zeros. */
function naturals(low: bigint, high: bigint): Expression {
  const options: Expression[] = []
  for (let digits = 1; digits <= DIGITS; digits++) {
    const smallest = digits === 1 ? 0n : 10n ** BigInt(digits - 1)
    const largest = 10n ** BigInt(digits) - 1n
    const from = low > smallest ? low : smallest
    const to = high < largest ? high : largest
    if (from <= to) options.push(sameLength(String(from), String(to)))
  }
  return choice(...options)
}

const digits = (from: number, to: number): Expression => charClass(from <= to ? [0x30 + from, 0x30 + to] : [])

/** Digit strings between two of the same length. */
function sameLength(low: string, high: string): Expression {
  if (/^0*$/.test(low) && /^9*$/.test(high)) return repeat(digit, low.length, low.length)
  const first = Number(low[0])
  const last = Number(high[0])
  const lowRest = low.slice(1)
  const highRest = high.slice(1)
  if (first === last) return sequence(text(low[0]), sameLength(lowRest, highRest))
  return choice(
    sequence(text(low[0]), sameLength(lowRest, '9'.repeat(lowRest.length))),
    sequence(digits(first + 1, last - 1), repeat(digit, lowRest.length, lowRest.length)),
    sequence(text(high[0]), sameLength('0'.repeat(highRest.length), highRest)),
  )
}

/** Digit strings, also with a minus, whose number is a multiple: the states are remainders. */
function multiples(of: number): Expression {
  const states: AutomatonState[] = [{ accepts: false, edges: [0x2d, 0x2d, 1] }]
  const edges = (remainder: number) =>
    Array.from({ length: 10 }, (_, d) => [0x30 + d, 0x30 + d, 1 + ((remainder * 10 + d) % of)]).flat()
  for (let remainder = 0; remainder < of; remainder++)
    states.push({ accepts: remainder === 0, edges: edges(remainder) })
  states[0] = { accepts: false, edges: [0x2d, 0x2d, 1, ...edges(0)] }
  return { type: 'automaton', states }
}

/** Numbers within bounds, without an exponent. */
export function number(bounds: Bounds): Expression {
  const { low, lowExclusive = false, high, highExclusive = false } = bounds
  if (low === undefined && high === undefined) return rule('number')
  const options: Expression[] = []
  if (high === undefined || high >= 0) {
    const positive = low !== undefined && low >= 0 ? { value: low, exclusive: lowExclusive } : undefined
    options.push(decimals(positive, high === undefined ? undefined : { value: high, exclusive: highExclusive }))
  }
  if (low === undefined || low < 0) {
    // Mirrored: the bounds of what follows the minus. There is no -0.
    const least =
      high !== undefined && high < 0 ? { value: -high, exclusive: highExclusive } : { value: 0, exclusive: true }
    const most = low === undefined ? undefined : { value: -low, exclusive: lowExclusive }
    options.push(sequence(text('-'), decimals(least, most)))
  }
  return choice(...options)
}

interface Bound {
  value: number
  exclusive: boolean
}

/** Decimals of at least 0. Digits behind the point are few enough for a double to distinguish the numbers next to a bound from it. */
function decimals(low: Bound | undefined, high: Bound | undefined): Expression {
  const plain = [low, high].map((bound) => (bound === undefined ? undefined : plainDecimal(bound.value)))
  if (plain[0] && BigInt(plain[0].whole) > MOST) return nothing
  const whole = Math.max(...plain.map((bound) => (bound === undefined ? 1 : Math.min(DIGITS, bound.whole.length))))
  const places = DIGITS - whole
  const parts: Expression[] = []
  if (low && plain[0]) parts.push(above(plain[0], low.exclusive, places))
  if (high && plain[1] && BigInt(plain[1].whole) <= MOST) parts.push(below(plain[1], high.exclusive, places))
  if (parts.length === 0) parts.push(sequence(naturals(0n, MOST), fraction(places)))
  return parts.length === 1 ? parts[0] : both(parts[0], parts[1])
}

interface Decimal {
  whole: string
  fraction: string
}

/** A finite number of at least 0 without an exponent, its fraction without zeros at the end. */
function plainDecimal(value: number): Decimal {
  const [mantissa, exponent = '0'] = String(value).split('e')
  const [whole, part = ''] = mantissa.split('.')
  const shift = Number(exponent)
  const all = whole + part
  const point = whole.length + shift
  const padded = point <= 0 ? '0'.repeat(1 - point) + all : all.padEnd(point, '0')
  const at = Math.max(1, point)
  return { whole: padded.slice(0, at).replace(/^0+(?=\d)/, ''), fraction: padded.slice(at).replace(/0+$/, '') }
}

const fraction = (places: number) => (places < 1 ? empty() : optional(sequence(text('.'), repeat(digit, 1, places))))

function above({ whole, fraction: part }: Decimal, exclusive: boolean, places: number): Expression {
  const larger = sequence(naturals(BigInt(whole) + 1n, MOST), fraction(places))
  const same =
    part !== ''
      ? sequence(text('.'), tailAbove(part, exclusive, places))
      : exclusive
        ? sequence(text('.'), tailAbove('', true, places))
        : fraction(places)
  return choice(larger, sequence(text(whole), same))
}

/** Up to `places` digits that make more than 0.`part`. */
function tailAbove(part: string, exclusive: boolean, places: number): Expression {
  if (part === '' && !exclusive) return repeat(digit, 0, places)
  if (places === 0) return nothing
  const first = Number(part[0] ?? 0)
  return choice(
    sequence(digits(first + 1, 9), repeat(digit, 0, places - 1)),
    sequence(text(String(first)), tailAbove(part.slice(1), exclusive, places - 1)),
  )
}

function below({ whole, fraction: part }: Decimal, exclusive: boolean, places: number): Expression {
  const smaller = whole === '0' ? nothing : sequence(naturals(0n, BigInt(whole) - 1n), fraction(places))
  const zeros = places < 1 ? empty() : optional(sequence(text('.'), repeat(text('0'), 1, places)))
  const same =
    part === '' ? (exclusive ? nothing : zeros) : optional(sequence(text('.'), tailBelow(part, exclusive, places)))
  return choice(smaller, sequence(text(whole), same))
}

/** One to `places` digits that make less than 0.`part`, which is above 0. */
function tailBelow(part: string, exclusive: boolean, places: number): Expression {
  if (places === 0) return nothing
  const first = Number(part[0])
  const rest = part.slice(1)
  const same =
    rest === ''
      ? exclusive
        ? nothing
        : repeat(text('0'), 0, places - 1)
      : optional(tailBelow(rest, exclusive, places - 1))
  return choice(sequence(digits(0, first - 1), repeat(digit, 0, places - 1)), sequence(text(String(first)), same))
}
