// What Python does with texts, and the error that all of this throws.

/** What is wrong with a template or with what it was given. */
export class TemplateError extends Error {}

/** White space as Python has it: U+FEFF is none, the separators U+001C to U+001F and U+0085 are. */
export const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'

/** The characters of a text, as Python counts them. */
export const characters = (text: string): readonly string[] =>
  /[\ud800-\udfff]/.test(text) ? Array.from(text) : text.split('')

/** `str.replace`: an empty `old` stands between all characters. */
export function replace(text: string, old: string, by: string, count = -1): string {
  if (count < 0)
    return old === '' ? [by, ...characters(text).flatMap((c) => [c, by])].join('') : text.split(old).join(by)
  const parts = old === '' ? ['', ...characters(text), ''] : text.split(old)
  return parts.reduce((done, part, i) => done + (i <= count ? by : old) + part)
}

export const CASED = /\p{Lu}|\p{Ll}|\p{Lt}/u

export const capitalise = (text: string): string => {
  const [first = '', ...rest] = characters(text)
  return first.toUpperCase() + rest.join('').toLowerCase()
}

export const isLower = (text: string): boolean => CASED.test(text) && text === text.toLowerCase()
export const isUpper = (text: string): boolean => CASED.test(text) && text === text.toUpperCase()

/** The widest text that padding may make. */
const MAX_WIDTH = 1 << 20

export function pad(text: string, width: number, fill = ' ', side: 'left' | 'right' | 'both' = 'right'): string {
  if (width > MAX_WIDTH) throw new TemplateError(`a width of ${width} is too large`)
  const missing = Math.max(0, width - characters(text).length)
  if (side === 'left') return fill.repeat(missing) + text
  if (side === 'right') return text + fill.repeat(missing)
  // Python puts the odd one to the left where the width is odd, else to the right.
  const left = Math.floor(missing / 2) + (missing & width & 1)
  return fill.repeat(left) + text + fill.repeat(missing - left)
}

const LEADING = new RegExp(`^[${SPACE}]+`)
const TRAILING = new RegExp(`[${SPACE}]+$`)

/** `str.strip` and its halves: white space, or any of `set`'s characters. */
export function strip(text: string, set: string | undefined, sides: 'both' | 'left' | 'right' = 'both'): string {
  if (set === undefined) {
    const left = sides === 'right' ? text : text.replace(LEADING, '')
    return sides === 'left' ? left : left.replace(TRAILING, '')
  }
  const dropped = new Set(characters(set))
  const parts = characters(text)
  let start = 0
  let end = parts.length
  if (sides !== 'right') while (start < end && dropped.has(parts[start]!)) start++
  if (sides !== 'left') while (end > start && dropped.has(parts[end - 1]!)) end--
  return parts.slice(start, end).join('')
}
