// A classifier of whole passages beside the lists of words: a linear model over words, pairs and pieces of words, trained by
// scripts/safety/train-classifier.ts. It judges a text sentence by sentence, each together with what stands before it.
import type { TensorData } from '../core/types.ts'
import { UserError } from '../core/types.ts'
import { decodeTensors, encodeTensors } from '../formats/safetensors.ts'
import { decodeEscapes } from './escapes.ts'
import { BUCKETS, pairBucket, pieceBuckets, type Word, weightOf, wordBucket, wordsOf } from './ngrams.ts'
import type { Detector, Finding } from './types.ts'

/** The categories it knows, in the order of the model's columns: those that public sets are labelled with. */
export const classified = [
  'harassment',
  'hate',
  'hate/threatening',
  'self-harm',
  'sexual',
  'sexual/minors',
  'violence',
  'violence/graphic',
] as const

const WIDTH = classified.length

export interface ClassifierModel {
  /** [BUCKETS, categories], times `scale` of the category. */
  weights: Int8Array
  scale: Float32Array
  bias: Float32Array
  /** Probability from which a category is flagged; scores are shifted so that it becomes 0.5. */
  threshold: Float32Array
}

const shapes: Record<keyof ClassifierModel, { dtype: TensorData['dtype']; shape: readonly number[] }> = {
  weights: { dtype: 'int8', shape: [BUCKETS, WIDTH] },
  scale: { dtype: 'float32', shape: [WIDTH] },
  bias: { dtype: 'float32', shape: [WIDTH] },
  threshold: { dtype: 'float32', shape: [WIDTH] },
}

/** Reads a model. Throws UserError that names `path` and what is wrong. */
export function parseClassifier(path: string, content: Uint8Array): ClassifierModel {
  const tensors = decodeTensors(path, content)
  const get = <A extends TensorData['data']>(name: keyof ClassifierModel): A => {
    const { dtype, shape } = shapes[name]
    const found = tensors.get(name)
    if (found?.dtype !== dtype || found.shape.join() !== shape.join())
      throw new UserError(`${path}: not a classifier of this version: expected ${dtype} ${name} [${shape.join(', ')}]`)
    return found.data as A
  }
  const model: ClassifierModel = {
    weights: get('weights'),
    scale: get('scale'),
    bias: get('bias'),
    threshold: get('threshold'),
  }
  for (const name of ['scale', 'bias'] as const)
    if (!model[name].every(Number.isFinite)) throw new UserError(`${path}: ${name} is not finite`)
  if (!model.threshold.every((value) => value > 0 && value < 1))
    throw new UserError(`${path}: threshold is not between 0 and 1`)
  return model
}

/** The file of a model. */
export const encodeClassifier = (model: ClassifierModel): Uint8Array =>
  encodeTensors(
    new Map(
      (Object.keys(shapes) as (keyof ClassifierModel)[]).map((name) => [name, { ...shapes[name], data: model[name] }]),
    ),
  )

/** Characters that are judged together; those of a passage before are context. */
export const WINDOW = 1024
/** A passage ends with a sentence or a line, from so many characters on; or at a word before it gets longer than the other. */
const SHORTEST = 48
const LONGEST = 240
const END = /[.!?…]["'”’)\]]*\s|\n/g

/** Where the passage that begins at `from` ends; undefined where that is not known yet. */
export function passageEnd(text: string, from: number, last: boolean): number | undefined {
  END.lastIndex = from + SHORTEST
  const found = END.exec(text)
  const end = found ? found.index + found[0].length : text.length
  if (end <= from + LONGEST && (found || last)) return end
  if (text.length <= from + LONGEST) return undefined
  const piece = text.slice(from, from + LONGEST)
  const space = piece.search(/\s\S*$/)
  if (space > 0) return from + space + 1
  const code = text.charCodeAt(from + LONGEST - 1)
  return from + LONGEST - (code >= 0xd800 && code < 0xdc00 ? 1 : 0)
}

/** Sums of a model's weights over the features of a word. */
interface Sums {
  word: Float32Array
  pieces: Float32Array
  count: number
}

/** Words whose sums are kept. */
const KEPT = 20_000
/** Scores below say nothing. */
const LEAST = 0.05

export interface Classifier extends Detector {
  /** The highest log-odds of each category over the passages of a text, the threshold at zero. */
  logits(text: string): Float32Array
}

export function createClassifier({ weights, scale, bias, threshold }: ClassifierModel): Classifier {
  const known = new Map<string, Sums>()
  const shift = threshold.map((value) => Math.log(value / (1 - value)))

  const add = (into: Float32Array, bucket: number): void => {
    for (let c = 0; c < WIDTH; c++) into[c]! += weights[bucket * WIDTH + c]!
  }

  function sumsOf(word: string): Sums {
    const found = known.get(word)
    if (found) return found
    const sums: Sums = { word: new Float32Array(WIDTH), pieces: new Float32Array(WIDTH), count: 0 }
    add(sums.word, wordBucket(word))
    for (const bucket of pieceBuckets(word)) {
      add(sums.pieces, bucket)
      sums.count++
    }
    // Not the oldest alone: nearly all texts are made of a few thousand words, which are soon back.
    if (known.size >= KEPT) known.clear()
    known.set(word, sums)
    return sums
  }

  /** Of the words from `begin` to `end`, each different one and each different pair once. */
  function judge(words: readonly Word[], begin: number, end: number): Float32Array {
    const [single, pairs, pieces] = [new Float32Array(WIDTH), new Float32Array(WIDTH), new Float32Array(WIDTH)]
    const seen = new Set<string>()
    const seenPairs = new Set<number>()
    let count = 0
    for (let i = begin; i < end; i++) {
      const { text } = words[i]!
      const next = i + 1 < end ? pairBucket(text, words[i + 1]!.text) : undefined
      if (next !== undefined && !seenPairs.has(next)) {
        seenPairs.add(next)
        add(pairs, next)
      }
      if (seen.has(text)) continue
      seen.add(text)
      const sums = sumsOf(text)
      count += sums.count
      for (let c = 0; c < WIDTH; c++) {
        single[c]! += sums.word[c]!
        pieces[c]! += sums.pieces[c]!
      }
    }
    const [forWords, forPairs, forPieces] = [seen.size, seenPairs.size, count].map(weightOf) as [number, number, number]
    return single.map(
      (sum, c) => scale[c]! * (sum * forWords + pairs[c]! * forPairs + pieces[c]! * forPieces) + bias[c]! - shift[c]!,
    )
  }

  const passages = (text: string, from: number, last: boolean): number[] => {
    const ends: number[] = []
    for (let at = from; at < text.length; ) {
      const end = passageEnd(text, at, last)
      if (end === undefined) break
      ends.push(end)
      at = end
    }
    return ends
  }

  /** Log-odds of each passage from `from` on, by its end. */
  function judged(text: string, from: number, last: boolean): [stop: number, odds: Float32Array][] {
    const stops = passages(text, from, last)
    if (stops.length === 0) return []
    const words = wordsOf(text)
    let [begin, end] = [0, 0]
    return stops.map((stop) => {
      while (end < words.length && words[end]!.end <= stop) end++
      while (begin < end && words[begin]!.start < stop - WINDOW) begin++
      const odds = judge(words, begin, end)
      const decoded = decodeEscapes(text.slice(Math.max(0, stop - WINDOW), stop))
      if (!decoded) return [stop, odds]
      const meant = wordsOf(decoded.text)
      return [stop, highest(odds, judge(meant, 0, meant.length))]
    })
  }

  return {
    context: WINDOW,
    decodes: true,
    logits: (text) =>
      judged(text, 0, true)
        .map(([, odds]) => odds)
        .reduce(highest, new Float32Array(WIDTH).fill(Number.NEGATIVE_INFINITY)),
    passages,
    find(text, from, last) {
      const findings: Finding[] = []
      let start = from
      for (const [end, odds] of judged(text, from, last)) {
        for (const [c, category] of classified.entries()) {
          const score = 1 / (1 + Math.exp(-odds[c]!))
          if (score >= LEAST) findings.push({ rule: 'classifier', category, action: 'score', score, start, end })
        }
        start = end
      }
      return findings
    },
    open: (text, from) => passages(text, from, false).at(-1) ?? from,
  }
}

const highest = (one: Float32Array, other: Float32Array) => one.map((value, i) => Math.max(value, other[i]!))
