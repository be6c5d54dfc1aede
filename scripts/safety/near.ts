// Texts that are the same, or nearly, in two lists: what is trained on may not be scored.
import { normalised } from '../../src/data/near-duplicates.ts'

const SHINGLE = 5
/** Share of a text's runs of five words that another one has too, from which they count as near duplicates. */
const SHARE = 0.5

function shingles(text: string): Set<string> {
  const words = normalised(text).split(' ')
  if (words.length <= SHINGLE) return new Set([words.join(' ')])
  return new Set(words.slice(SHINGLE - 1).map((_, i) => words.slice(i, i + SHINGLE).join(' ')))
}

/** For texts that must not be trained on: whether another text is one of them, or nearly. */
export function nearOf(texts: readonly string[]): (text: string) => boolean {
  const holders = new Map<string, number[]>()
  const sizes: number[] = []
  texts.forEach((text, i) => {
    const parts = shingles(text)
    sizes.push(parts.size)
    for (const part of parts) {
      const list = holders.get(part)
      if (list) list.push(i)
      else holders.set(part, [i])
    }
  })
  return (text) => {
    const parts = shingles(text)
    const shared = new Map<number, number>()
    for (const part of parts) for (const i of holders.get(part) ?? []) shared.set(i, (shared.get(i) ?? 0) + 1)
    return [...shared].some(([i, count]) => count >= SHARE * Math.min(parts.size, sizes[i]!))
  }
}
