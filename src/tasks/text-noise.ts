// Noise as keyboards, optical character recognition and speech recognition make it. Seeded; knows nothing about rows or files.
import type { Random } from '../core/random.ts'

export const noiseKinds = ['keyboard', 'ocr', 'speech'] as const
export type NoiseKind = (typeof noiseKinds)[number]

/** Share of the characters that keyboard and OCR noise try to change. */
const RATE = 0.07

/** A clean text as it came in. `draw.uniform()` decides everything. */
export function addNoise(text: string, kind: NoiseKind, draw: Draw): string {
  return { keyboard, ocr, speech }[kind](text, draw)
}

/** What noise needs of a random generator. */
export interface Draw {
  /** A number in [0, 1). */
  uniform(): number
  /** A whole number from 0 to `count` - 1. */
  below(count: number): number
}

export const drawFrom = (source: Random): Draw => ({
  uniform: () => source.uint32() * 2 ** -32,
  below: (count) => Math.floor(source.uint32() * 2 ** -32 * count),
})

const pick = <T>(items: readonly T[], draw: Draw): T => items[draw.below(items.length)] as T

const keyRows = ['qwertyuiop', 'asdfghjkl', 'zxcvbnm']

/** Keys beside each letter on a QWERTY keyboard. */
const neighbours = new Map<string, string>()
for (const [y, row] of keyRows.entries())
  for (const [x, key] of [...row].entries()) {
    const near = [
      row[x - 1],
      row[x + 1],
      keyRows[y - 1]?.[x],
      keyRows[y - 1]?.[x + 1],
      keyRows[y + 1]?.[x - 1],
      keyRows[y + 1]?.[x],
    ]
    neighbours.set(key, near.filter((other) => other !== undefined).join(''))
  }

const isLetter = (character: string | undefined): boolean => character !== undefined && /[a-zA-Z]/.test(character)

/** Wrong, swapped, missing and doubled letters; missing and doubled spaces. */
function keyboard(text: string, draw: Draw): string {
  let out = ''
  for (let i = 0; i < text.length; i++) {
    const here = text[i] as string
    if (draw.uniform() >= RATE) {
      out += here
      continue
    }
    if (here === ' ') {
      out += draw.uniform() < 0.5 ? '' : '  '
      continue
    }
    if (!isLetter(here)) {
      out += here
      continue
    }
    const way = draw.below(4)
    if (way === 0) out += nextTo(here, draw)
    else if (way === 1 && isLetter(text[i + 1])) out += `${text[++i]}${here}`
    else if (way === 2) out += here + here
    // Otherwise the letter is missing.
  }
  return out
}

function nextTo(letter: string, draw: Draw): string {
  const other = pick([...(neighbours.get(letter.toLowerCase()) as string)], draw)
  return letter === letter.toLowerCase() ? other : other.toUpperCase()
}

/** What looks alike in print. */
const alike: readonly (readonly [string, readonly string[]])[] = [
  ['rn', ['m']],
  ['cl', ['d']],
  ['vv', ['w']],
  ['m', ['rn']],
  ['w', ['vv']],
  ['d', ['cl']],
  ['l', ['1', 'I', '|']],
  ['I', ['l', '1']],
  ['i', ['l', '1']],
  ['o', ['0']],
  ['O', ['0']],
  ['0', ['O', 'o']],
  ['1', ['l', 'I']],
  ['5', ['S']],
  ['S', ['5']],
  ['s', ['5']],
  ['B', ['8']],
  ['8', ['B']],
  ['e', ['c']],
  ['c', ['e']],
  ['h', ['b', 'li']],
  ['n', ['ri']],
  ['u', ['ii']],
  ['t', ['f']],
  ['f', ['t']],
  ['g', ['q', '9']],
  ['.', [',', '']],
  [',', ['.', '']],
]

/** Characters that look alike, words broken by a hyphen, lost punctuation. */
function ocr(text: string, draw: Draw): string {
  let out = ''
  for (let i = 0; i < text.length; ) {
    const found = alike.filter(([from]) => text.startsWith(from, i))
    if (found.length > 0 && draw.uniform() < 1.6 * RATE) {
      const [from, to] = pick(found, draw)
      out += pick(to, draw)
      i += from.length
      continue
    }
    if (isLetter(text[i]) && isLetter(text[i - 1]) && isLetter(text[i + 1]) && draw.uniform() < 0.008) out += '- '
    out += text[i++]
  }
  return out
}

const homophones: readonly (readonly string[])[] = [
  ['their', 'there', "they're"],
  ['to', 'too', 'two'],
  ['its', "it's"],
  ['your', "you're"],
  ['for', 'four'],
  ['one', 'won'],
  ['by', 'buy'],
  ['our', 'hour'],
  ['would', 'wood'],
  ['know', 'no'],
  ['whole', 'hole'],
  ['peace', 'piece'],
  ['principle', 'principal'],
  ['than', 'then'],
  ['week', 'weak'],
  ['right', 'write'],
  ['here', 'hear'],
  ['new', 'knew'],
  ['sum', 'some'],
  ['are', 'our'],
]

const fillers = ['um', 'uh', 'you know', 'like']

const units =
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split(
    ' ',
  )
const tens = 'zero ten twenty thirty forty fifty sixty seventy eighty ninety'.split(' ')

/** A whole number below a million in words. */
export function inWords(value: number): string {
  if (value < 20) return units[value] as string
  if (value < 100) return [tens[Math.floor(value / 10)], ...(value % 10 > 0 ? [units[value % 10]] : [])].join(' ')
  const [size, name] = value < 1000 ? [100, 'hundred'] : [1000, 'thousand']
  const rest = value % size
  return `${inWords(Math.floor(value / size))} ${name}${rest > 0 ? ` ${inWords(rest)}` : ''}`
}

/** Lower case without punctuation, numbers in words, words that sound alike, words that mean nothing. */
function speech(text: string, draw: Draw): string {
  const spoken = text
    .replace(/\$(\d[\d,]*)/g, '$1 dollars')
    .replace(/(\d)%/g, '$1 percent')
    .replace(/\d{1,3}(?:,\d{3})+|\d+/g, (digits) => {
      const value = Number(digits.replaceAll(',', ''))
      return value < 1_000_000 ? inWords(value) : digits
    })
    .toLowerCase()
    .replace(/[^a-z0-9' ]+/g, ' ')
  const words = spoken.split(' ').filter((word) => word !== '')
  return words
    .flatMap((word) => {
      const group = homophones.find((words) => words.includes(word))
      const said =
        group && draw.uniform() < 0.2
          ? pick(
              group.filter((other) => other !== word),
              draw,
            )
          : word
      return draw.uniform() < 0.03 ? [pick(fillers, draw), said] : [said]
    })
    .join(' ')
}
