// Scores of texts against references: character error rate and exact matches, with standard errors over the texts.
// Pure functions; knows nothing about how the texts were made.
import { editDistance } from '../core/edit-distance.ts'

export interface TextPair {
  text: string
  reference: string
}

/** A mean and its standard error. */
export interface Estimate {
  value: number
  /** NaN for a single text. */
  stderr: number
}

/**
 * Character error rate: edit distances of all texts over the characters of all references. The standard error is that of a
 * ratio of sums over independent texts (Cochran, Sampling Techniques, 1977, section 6.3).
 */
export function characterErrorRate(pairs: readonly TextPair[]): Estimate {
  const errors = pairs.map(({ text, reference }) => editDistance(text, reference))
  const lengths = pairs.map(({ reference }) => [...reference].length)
  return ratio(errors, lengths)
}

/** Share of the texts that are their references, character by character. */
export const exactMatches = (pairs: readonly TextPair[]): Estimate =>
  ratio(
    pairs.map(({ text, reference }) => Number(text === reference)),
    pairs.map(() => 1),
  )

function ratio(parts: readonly number[], wholes: readonly number[]): Estimate {
  const total = sum(wholes)
  const value = sum(parts) / total
  const count = parts.length
  const squares = sum(parts.map((part, i) => (part - value * (wholes[i] as number)) ** 2))
  return { value, stderr: count < 2 ? Number.NaN : Math.sqrt((count / (count - 1)) * squares) / total }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
