// Scores of texts against references: character error rate and exact matches, with standard errors over the texts.
// Pure functions; knows nothing about how the texts were made.
import { editDistance } from '../core/edit-distance.ts'
import { type Estimate, ratioOfSums } from './estimate.ts'

export interface TextPair {
  text: string
  reference: string
}

/** Character error rate: edit distances of all texts over the characters of all references. */
export const characterErrorRate = (pairs: readonly TextPair[]): Estimate =>
  ratioOfSums(
    pairs.map(({ text, reference }) => editDistance(text, reference)),
    pairs.map(({ reference }) => [...reference].length),
  )

/** Share of the texts that are their references, character by character. */
export const exactMatches = (pairs: readonly TextPair[]): Estimate =>
  ratioOfSums(
    pairs.map(({ text, reference }) => Number(text === reference)),
    pairs.map(() => 1),
  )
