// What the classifier sees of a text: its words, its pairs of neighbouring words, and pieces of its words, each as a bucket of
// a table. A word that was never seen still shares pieces with others.

/** Rows of the table. */
export const BUCKETS = 1 << 18
/** Units of a word that count; nobody writes longer ones. */
const MAX_WORD = 40
/** Lengths of the pieces of a word. */
const PIECES = [3, 4, 5] as const
const WORD = /[\p{L}\p{M}\p{N}_]+(?:['’][\p{L}\p{M}]+)*|[^\s\p{L}\p{M}\p{N}_]/gu

export interface Word {
  /** As features see it. */
  text: string
  /** Where it stands in the original. */
  start: number
  end: number
}

/** Words and signs of a text: compatibility forms resolved, in lower case, three and more of a letter as two. */
export function wordsOf(text: string): Word[] {
  return Array.from(text.matchAll(WORD), ({ 0: found, index }) => ({
    text: plain(found.slice(0, MAX_WORD)),
    start: index,
    end: index + found.length,
  }))
}

const plain = (word: string) =>
  word
    .normalize('NFKC')
    .toLowerCase()
    .replaceAll('’', "'")
    .replace(/(.)\1{2,}/gu, '$1$1')

/** FNV-1a over UTF-16 units; the kind of a feature is its first unit. */
function bucketOf(kind: number, text: string, begin = 0, end = text.length): number {
  let hash = Math.imul(0x811c9dc5 ^ kind, 0x01000193)
  for (let i = begin; i < end; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash ^= hash >>> 15
  return Math.imul(hash, 0x2c1b3c6d) >>> (32 - Math.log2(BUCKETS))
}

export const wordBucket = (word: string): number => bucketOf(1, word)
export const pairBucket = (one: string, two: string): number => bucketOf(2, `${one} ${two}`)

/** Buckets of the pieces of a word, its bounds marked. */
export function pieceBuckets(word: string): number[] {
  const marked = ` ${word} `
  const buckets: number[] = []
  for (const length of PIECES)
    for (let at = 0; at + length <= marked.length; at++) buckets.push(bucketOf(3, marked, at, at + length))
  return buckets
}

/** How much each feature of a kind counts where there are `count` of them: together they have length 1. */
export const weightOf = (count: number): number => (count === 0 ? 0 : 1 / Math.sqrt(count))
