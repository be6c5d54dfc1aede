import fc from 'fast-check'
import { expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import {
  type ClassifierModel,
  classified,
  createClassifier,
  encodeClassifier,
  parseClassifier,
  passageEnd,
  WINDOW,
} from './classifier.ts'
import { createFilter } from './filter.ts'
import { BUCKETS, pairBucket, pieceBuckets, weightOf, wordBucket, wordsOf } from './ngrams.ts'

/** A model whose weights are noise, so that every feature of every text counts. */
function noise(): ClassifierModel {
  const width = classified.length
  const weights = Int8Array.from({ length: BUCKETS * width }, (_, i) => ((i * 2654435761) >>> 24) - 128)
  return {
    weights,
    scale: new Float32Array(width).fill(0.01),
    bias: Float32Array.from({ length: width }, (_, c) => c / 10 - 1),
    threshold: new Float32Array(width).fill(0.3),
  }
}

const model = noise()

test('a text of one window scores as the formula has it', () => {
  const words = wordsOf('Ｔhe cat, the CAT, soooooo black.').map(({ text }) => text)
  expect(words).toEqual(['the', 'cat', ',', 'the', 'cat', ',', 'soo', 'black', '.'])
  const distinct = [...new Set(words)]
  const pairs = [...new Set(words.slice(1).map((word, i) => pairBucket(words[i]!, word)))]
  const kinds = [distinct.map(wordBucket), pairs, distinct.flatMap(pieceBuckets)]
  const expected = classified.map((_, c) => {
    const sums = kinds.map(
      (buckets) =>
        weightOf(buckets.length) *
        buckets.reduce((sum, bucket) => sum + model.weights[bucket * classified.length + c]!, 0),
    )
    return sums.reduce((sum, part) => sum + part, 0) * 0.01 + (c / 10 - 1) - Math.log(0.3 / 0.7)
  })
  const odds = createClassifier(model).logits('Ｔhe cat, the CAT, soooooo black.')
  for (const [c, value] of expected.entries()) expect(odds[c]).toBeCloseTo(value, 4)
})

test('escapes count as what they stand for', () => {
  const classifier = createClassifier(model)
  const highest = (texts: string[]) =>
    classified.map((_, c) => Math.max(...texts.map((text) => classifier.logits(text)[c]!)))
  expect([...classifier.logits('c\\u0061t')]).toEqual(highest(['c\\u0061t', 'cat']))
})

test('passages end with sentences, and never get long', () => {
  expect(passageEnd('Short. Then a sentence that goes on for a good while, and ends. More', 0, false)).toBe(64)
  expect(passageEnd('No end of it', 0, false)).toBeUndefined()
  expect(passageEnd('No end of it', 0, true)).toBe(12)
  expect(passageEnd(`${'word '.repeat(60)}`, 0, false)).toBe(240)
  expect(passageEnd('x'.repeat(500), 0, false)).toBe(240)
  expect(passageEnd(`${'x'.repeat(239)}${'😀'.repeat(9)}`, 0, false)).toBe(239)
})

test('a text in pieces is judged as the same text at once, by what stands in reach', async () => {
  const filter = createFilter({ detectors: [createClassifier(model)] })
  const piece = fc.constantFrom(
    ...['the cat ', 'sat. ', 'On a mat!\n', 'x'.repeat(90), '\\u0061', '\\n', '😀', '  ', 'what if? ', 'and so on '],
  )
  const text = fc.array(piece, { maxLength: 80 }).map((parts) => parts.join(''))
  await fc.assert(
    fc.asyncProperty(text, fc.array(fc.nat(3000), { maxLength: 30 }), async (whole, cuts) => {
      const stream = filter.stream()
      const places = [0, ...cuts.map((cut) => cut % (whole.length + 1)).sort((a, b) => a - b), whole.length]
      const parts = places.slice(1).map((end, i) => stream.push(whole.slice(places[i], end)))
      parts.push(stream.end())
      expect(parts.map((part) => part.text).join('')).toBe(whole)
      expect(stream.scores()).toEqual((await filter.judge(whole)).scores)
    }),
    { numRuns: 200, seed: 5 },
  )
  const far = `${'Nothing here at all, and nothing more. '.repeat(60)}`
  const alone = createClassifier(model).logits(far.slice(-WINDOW))
  expect(
    createClassifier(model)
      .logits(far)
      .every((value, c) => value >= alone[c]! - 2),
  ).toBe(true)
})

test('a file that is none is refused, whatever is wrong with it', () => {
  const content = encodeClassifier(model)
  expect(content.length).toBeLessThan(4 * 2 ** 20)
  expect(encodeClassifier(parseClassifier('m', content)).every((byte, i) => byte === content[i])).toBe(true)
  const header = 8 + Number(new DataView(content.buffer).getBigUint64(0, true))
  const small = content.slice(0, header + 64)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(header), fc.nat(255)), { minLength: 1, maxLength: 6 }),
      fc.nat(header + 64),
      (edits, length) => {
        const bytes = small.slice(0, length)
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value
        expect(() => parseClassifier('m', bytes)).toThrow(UserError)
      },
    ),
    { numRuns: 300, seed: 9 },
  )
  const wrong = (change: Partial<ClassifierModel>) => () =>
    parseClassifier('m', encodeClassifier({ ...model, ...change }))
  expect(wrong({ bias: new Float32Array(classified.length).fill(Number.NaN) })).toThrow('m: bias is not finite')
  expect(wrong({ threshold: new Float32Array(classified.length) })).toThrow('m: threshold is not between 0 and 1')
})
