// Texts as rows of features, the way the classifier of src/safety sums them.
import { BUCKETS, pairBucket, pieceBuckets, weightOf, wordBucket, wordsOf } from '../../src/safety/ngrams.ts'
import type { Row } from './logistic.ts'

/** What a row is made of. */
export interface Kinds {
  pairs: boolean
  pieces: boolean
}

/** Characters of a text that are looked at. */
const LONGEST = 4000

/** Features of a text; `extra` follow behind the buckets of the table. */
export function rowOf(text: string, { pairs, pieces }: Kinds, extra: readonly number[] = []): Row {
  const words = wordsOf(text.slice(0, LONGEST)).map((word) => word.text)
  const distinct = [...new Set(words)]
  const sums = new Map<number, number>()
  const add = (buckets: readonly number[]) => {
    const weight = weightOf(buckets.length)
    for (const bucket of buckets) sums.set(bucket, (sums.get(bucket) ?? 0) + weight)
  }
  add(distinct.map(wordBucket))
  if (pairs) add([...new Set(words.slice(1).map((word, i) => pairBucket(words[i]!, word)))])
  if (pieces) add(distinct.flatMap(pieceBuckets))
  extra.forEach((value, i) => {
    sums.set(BUCKETS + i, value)
  })
  return { index: Int32Array.from(sums.keys()), value: Float32Array.from(sums.values()) }
}
