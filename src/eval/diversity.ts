// How varied texts are. Pure.

export interface Diversity {
  /** Share of different ones among all sequences of one word, and of two (Li et al. 2016, distinct-n). NaN without any. */
  distinct1: number
  distinct2: number
  /**
   * Mean BLEU-4 of each text against all others (Zhu et al. 2018), 0 to 1: lower is more varied. NaN for fewer than two texts.
   * Counts of 0 become 0.1 where a text has sequences of that length (Chen & Cherry 2014, method 1).
   */
  selfBleu: number
}

/** Most texts that self-BLEU compares, the first ones: its time grows with the square of their number. */
const MOST_COMPARED = 100

const wordsOf = (text: string): string[] => text.toLowerCase().match(/[\p{L}\p{N}']+|[^\s\p{L}\p{N}]/gu) ?? []

function ngrams(words: readonly string[], n: number): Map<string, number> {
  const counts = new Map<string, number>()
  for (let i = 0; i + n <= words.length; i++) {
    const key = words.slice(i, i + n).join(' ')
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return counts
}

export function diversity(texts: readonly string[]): Diversity {
  const words = texts.map(wordsOf)
  return { distinct1: distinct(words, 1), distinct2: distinct(words, 2), selfBleu: selfBleu(words) }
}

function distinct(words: readonly (readonly string[])[], n: number): number {
  const seen = new Set<string>()
  let total = 0
  for (const text of words)
    for (const [key, count] of ngrams(text, n)) {
      seen.add(key)
      total += count
    }
  return seen.size / total
}

function selfBleu(all: readonly (readonly string[])[]): number {
  const texts = all.filter((words) => words.length > 0).slice(0, MOST_COMPARED)
  if (texts.length < 2) return Number.NaN
  const counted = texts.map((words) => [1, 2, 3, 4].map((n) => ngrams(words, n)))
  const scores = texts.map((words, i) => {
    const others = texts.map((_, j) => j).filter((j) => j !== i)
    const lengths = others.map((j) => (texts[j] as readonly string[]).length)
    const nearest = lengths.reduce((best, length) => {
      const [a, b] = [Math.abs(length - words.length), Math.abs(best - words.length)]
      return a < b || (a === b && length < best) ? length : best
    })
    const logs = [0, 1, 2, 3].map((n) => {
      const own = counted[i]?.[n] as Map<string, number>
      let matched = 0
      for (const [key, count] of own)
        matched += Math.min(count, Math.max(...others.map((j) => counted[j]?.[n]?.get(key) ?? 0)))
      const total = Math.max(1, words.length - n)
      return Math.log((matched === 0 ? 0.1 : matched) / total)
    })
    // Without a word in common there is nothing to smooth.
    const isAlone = words.every((word) => others.every((j) => !counted[j]?.[0]?.has(word)))
    if (isAlone) return 0
    const brevity = words.length >= nearest ? 1 : Math.exp(1 - nearest / words.length)
    return brevity * Math.exp(logs.reduce((a, b) => a + b, 0) / 4)
  })
  return scores.reduce((a, b) => a + b, 0) / scores.length
}
