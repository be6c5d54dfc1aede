// Drafts that are found in the text itself (prompt lookup decoding; Saxena, 2023): what followed the last place where the
// text's ending stood before. Costs nothing; helps where an answer repeats what it was given.

/** The longest ending that is looked for, in tokens: a longer match says little more. */
const LONGEST = 8

export interface LookupOptions {
  /** Tokens of the text's ending that must match, at least. */
  ngram: number
  /** Most tokens that are drafted. */
  most: number
}

/** What followed the longest match of the text's ending, the latest one of equal length; empty where there is none. */
export function lookUp(ids: readonly number[], { ngram, most }: LookupOptions): number[] {
  let best = ngram - 1
  let from = -1
  for (let end = ids.length - 2; end >= 0 && best < LONGEST; end--) {
    let length = 0
    while (length <= end && length < LONGEST && ids[end - length] === ids[ids.length - 1 - length]) length++
    if (length <= best) continue
    best = length
    from = end + 1
  }
  return from === -1 ? [] : ids.slice(from, from + most)
}
