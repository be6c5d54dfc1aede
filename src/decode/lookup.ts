// Drafts that are found in the text itself: what followed the place that the text's ending resembles most. Like prompt lookup
// decoding (Saxena, 2023), but the ending need not stand there exactly: an answer that repeats its prompt with changes is found
// again right behind each change. Costs no forward.

import { createDraftRates, type DraftRates, type Resemblance } from './draft-rates.ts'

/** One bit each of an integer. */
export const LONGEST_WINDOW = 32

export interface LookupOptions {
  /** Bytes of the ending that are compared, at most `LONGEST_WINDOW`. */
  window: number
  /** Most tokens that are drafted. */
  most: number
  /** The bytes of a token; undefined where it has none. Default: no token has, and each counts as one byte of its own. */
  bytesOf?: ((token: number) => Uint8Array | undefined) | undefined
  /** How often drafts are accepted: followed, and written to. Default: first guesses. */
  rates?: DraftRates['earlier']
}

export interface LookedUp {
  token: number
  /** Probability that it is accepted if those before it are, as seen so far. */
  confidence: number
  /** To be told whether it was accepted, if those before it were. */
  observe(accepted: boolean): void
  /** To be told that it was too unlikely to be verified: it is tried again after a while. */
  recover(): void
}

/** Endings with more edits than this share of their bytes are not similar. */
const LARGEST_DIFFERENCE = 0.5

/** Drafts end where they are together less likely than this to be accepted. */
const LEAST_LIKELY = 0.1

/** An ending of fewer bytes stands in many places. */
const SHORT = 8

/** How fast rates follow what is seen. */
const RATE_STEP = 0.1
/** Drafts that are too unlikely are tried again after a while: what is written may have changed. */
const RECOVERY = 0.02

/** Tokens without bytes are told from all bytes. */
const OTHERS = 256

/** Where a passage like the text's ending was found. */
interface Passage {
  /** Index of the token behind it. */
  next: number
  kind: Resemblance
}

/** A text that grows, and what stands where. */
export interface Lookup {
  /** No draft has more tokens that are expected to be accepted. */
  readonly bestExpected: number
  append(tokens: readonly number[]): void
  /**
   * What followed the passage most similar to the ending of the text and the tokens `ahead`, the last of equal ones: at most
   * `most` tokens, as far as they are likely enough to be accepted.
   */
  draft(options?: { most?: number; ahead?: readonly number[] }): LookedUp[]
}

/** The ending begins behind `prompt` at the earliest, which is searched, too. */
export function createLookup(
  prompt: readonly number[],
  { window, most: limit, bytesOf, rates = createDraftRates().earlier }: LookupOptions,
): Lookup {
  const text: number[] = []
  const tokens: number[] = []
  /** Where in `text` each token begins, and where the next one will. */
  const starts = [0]
  /** What was found for the text as it stands: who chooses among drafts asks more than once. */
  let known: { found: Passage | undefined } | undefined
  append(prompt)
  const written = text.length

  function append(more: readonly number[]): void {
    for (const token of more) {
      const bytes = bytesOf?.(token)
      if (bytes) text.push(...bytes)
      else text.push(OTHERS + token)
      tokens.push(token)
      starts.push(text.length)
    }
    known = undefined
  }

  /** Index of the token behind the most similar passage, one that ends with a token if there is a choice. */
  function mostSimilar(): Passage | undefined {
    const from = Math.max(written, text.length - window)
    const length = text.length - from
    if (length === 0) return undefined
    let best: { next: number; distance: number; whole: boolean } | undefined
    let next = 0
    // Not where both overlap: the text resembles its own ending there.
    const distances = editDistances(text.slice(from), text, from)
    for (let i = 0; i < from; i++) {
      const distance = distances[i] as number
      while ((starts[next] as number) < i + 1) next++
      const whole = starts[next] === i + 1
      const worse = best && (distance > best.distance || (distance === best.distance && best.whole && !whole))
      if (!worse) best = { next, distance, whole }
    }
    if (!best || best.distance > LARGEST_DIFFERENCE * length) return undefined
    return {
      next: best.next,
      kind: length < Math.min(SHORT, window) ? 'short' : best.distance === 0 ? 'equal' : 'similar',
    }
  }

  /** The passage most similar to the ending once these tokens stand behind the text. */
  function search(ahead: readonly number[]): Passage | undefined {
    if (ahead.length === 0) {
      known ??= { found: mostSimilar() }
      return known.found
    }
    const [count, before] = [tokens.length, known]
    append(ahead)
    const found = mostSimilar()
    known = before
    tokens.length = count
    starts.length = count + 1
    text.length = starts[count] as number
    return found
  }

  return {
    append,
    get bestExpected() {
      const expected = ([first, further]: readonly number[]) => {
        let [sum, together] = [0, first as number]
        for (let i = 0; i < limit; i++, together *= further as number) sum += together
        return sum
      }
      return Math.max(...Object.values(rates).map(expected))
    },
    draft({ most = limit, ahead = [] } = {}) {
      const found = search(ahead)
      if (!found) return []
      const own = rates[found.kind]
      const drafts: LookedUp[] = []
      let together = 1
      for (const token of tokens.slice(found.next, found.next + most)) {
        const kind = drafts.length === 0 ? 0 : 1
        const confidence = own[kind] as number
        together *= confidence
        if (together < LEAST_LIKELY) {
          recover(own, kind)
          break
        }
        drafts.push({
          token,
          confidence,
          observe(accepted) {
            own[kind] = (own[kind] as number) + RATE_STEP * (Number(accepted) - (own[kind] as number))
          },
          recover: () => recover(own, kind),
        })
      }
      return drafts
    },
  }
}

/** What is too unlikely is tried again after a while. */
const recover = (rates: number[], kind: number): void => {
  rates[kind] = (rates[kind] as number) + RECOVERY * (1 - (rates[kind] as number))
}

/**
 * The least edits (insertions, deletions, substitutions) between `pattern`, at most `LONGEST_WINDOW` symbols, and any passage of
 * `text` that ends at each of its first `end` symbols: Myers' bit-parallel search (Myers, 1999; Hyyrö, 2003).
 */
export function editDistances(pattern: readonly number[], text: readonly number[], end: number): Uint8Array {
  const places = new Map<number, number>()
  for (const [i, symbol] of pattern.entries()) places.set(symbol, (places.get(symbol) ?? 0) | (1 << i))
  const last = 1 << (pattern.length - 1)
  const distances = new Uint8Array(end)
  let [rises, falls, distance] = [-1, 0, pattern.length]
  for (let i = 0; i < end; i++) {
    const equal = places.get(text[i] as number) ?? 0
    const diagonal = (((equal & rises) + rises) ^ rises) | equal | falls
    let across = falls | ~(diagonal | rises)
    let back = rises & diagonal
    if (across & last) distance++
    if (back & last) distance--
    across <<= 1
    back <<= 1
    rises = back | ~(diagonal | across)
    falls = across & diagonal
    distances[i] = distance
  }
  return distances
}
