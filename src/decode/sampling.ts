// From the logits of a position to a token: penalties and biases, the probability that counts as confidence, and a draw from
// the tempered and filtered distribution. Knows nothing about blocks or forwards.
import { random } from '../random.ts'
import { UserError } from '../types.ts'

export interface SamplingOptions {
  /** 0: always the most probable token. Default 0. */
  temperature?: number
  /** Draw from the k most probable tokens only; 0 for all. Default 0. */
  topK?: number
  /** Draw from the fewest tokens whose probabilities reach this sum. Default 1: from all. */
  topP?: number
  /** Draw from tokens whose probability is at least this share of the greatest. Default 0: from all. */
  minP?: number
  /** Above 1 makes tokens that the text already has less probable (Keskar et al. 2019, CTRL, section 4.1). Default 1. */
  repetitionPenalty?: number
  /** Added to the logits: token -> bias; -Infinity forbids it. */
  logitBias?: ReadonlyMap<number, number>
  /** Draws are a function of it, the position and the step. Default 0. */
  seed?: number
  /** Return log-probabilities, and those of so many most probable tokens. Default: none. */
  logprobs?: number
}

/** Throws UserError for a setting out of its range, or two that contradict. */
export function checkSampling(options: SamplingOptions, vocabSize: number): void {
  const {
    temperature = 0,
    topK = 0,
    topP = 1,
    minP = 0,
    repetitionPenalty = 1,
    logitBias,
    seed = 0,
    logprobs,
  } = options
  const wholeOf = (name: string, value: number, most: number) => {
    if (!Number.isSafeInteger(value) || value < 0 || value > most)
      throw new UserError(`${name} must be a whole number from 0 to ${most}, got ${value}`)
  }
  if (!(temperature >= 0 && temperature <= 100))
    throw new UserError(`temperature must be from 0 to 100, got ${temperature}`)
  wholeOf('topK', topK, Number.MAX_SAFE_INTEGER)
  if (!(topP > 0 && topP <= 1)) throw new UserError(`topP must be above 0 and at most 1, got ${topP}`)
  if (!(minP >= 0 && minP <= 1)) throw new UserError(`minP must be from 0 to 1, got ${minP}`)
  if (!(repetitionPenalty > 0 && repetitionPenalty <= 100))
    throw new UserError(`repetitionPenalty must be above 0 and at most 100, got ${repetitionPenalty}`)
  wholeOf('seed', seed, Number.MAX_SAFE_INTEGER)
  if (logprobs !== undefined) wholeOf('logprobs', logprobs, 100)
  for (const [token, bias] of logitBias ?? []) {
    if (!Number.isInteger(token) || token < 0 || token >= vocabSize)
      throw new UserError(`logitBias has the token id ${token}, but the model's vocabulary has ${vocabSize} entries`)
    if (Number.isNaN(bias) || bias === Number.POSITIVE_INFINITY)
      throw new UserError(`logitBias of token ${token} must be a number below infinity, got ${bias}`)
  }
  if (temperature === 0) {
    const set = [topK > 0 && 'topK', topP < 1 && 'topP', minP > 0 && 'minP'].filter((name) => name !== false)
    if (set.length > 0)
      throw new UserError(
        `${set.join(' and ')} choose${set.length > 1 ? '' : 's'} what to draw from, but temperature is 0: nothing is drawn`,
      )
  }
}

/** The most probable token needs no logits outside the graph; anything else does. */
export const needsLogits = (options: SamplingOptions): boolean =>
  (options.temperature ?? 0) > 0 ||
  (options.repetitionPenalty ?? 1) !== 1 ||
  (options.logitBias?.size ?? 0) > 0 ||
  options.logprobs !== undefined

/** Applies penalty and biases in place. `present` are the tokens of the text. */
export function adjustLogits(
  logits: Float32Array,
  { repetitionPenalty = 1, logitBias }: SamplingOptions,
  present: Iterable<number>,
): void {
  if (repetitionPenalty !== 1)
    for (const token of new Set(present)) {
      const value = logits[token]
      logits[token] = value > 0 ? value / repetitionPenalty : value * repetitionPenalty
    }
  for (const [token, bias] of logitBias ?? []) logits[token] += bias
}

/** Tokens that may be drawn, most probable first, and their probabilities, which sum to 1. */
export interface Distribution {
  tokens: readonly number[]
  probabilities: Float64Array
}

/**
 * The distribution of softmax(logits / temperature), cut to topK, then topP of what is left, then minP, as Hugging Face does.
 * With temperature 0 all is on the most probable token, the first of equals.
 */
export function distribution(logits: Float32Array, options: SamplingOptions): Distribution {
  const { temperature = 0, topK = 0, topP = 1, minP = 0 } = options
  const best = argmax(logits)
  if (temperature === 0) return { tokens: [best], probabilities: Float64Array.of(1) }
  const highest = logits[best]
  const weight = (token: number) => Math.exp((logits[token] - highest) / temperature)
  const limit = topK > 0 ? Math.min(topK, logits.length) : logits.length
  let tokens: number[]
  if (limit < logits.length || topP < 1) tokens = nucleus(logits, weight, limit, topP)
  else tokens = Array.from(logits, (_, token) => token)
  tokens = tokens.filter((token) => weight(token) >= minP && logits[token] > Number.NEGATIVE_INFINITY)
  const probabilities = Float64Array.from(tokens, weight)
  const sum = probabilities.reduce((a, b) => a + b, 0)
  for (let i = 0; i < probabilities.length; i++) probabilities[i] /= sum
  return { tokens, probabilities }
}

/** The fewest of the `limit` most probable tokens whose weights reach the share `topP` of those of all `limit`. */
function nucleus(logits: Float32Array, weight: (token: number) => number, limit: number, topP: number): number[] {
  if (limit < logits.length) {
    const tokens = largest(logits, limit)
    return topP < 1 ? shortestPrefix(tokens, weight, topP * sumOf(tokens, weight)) : tokens
  }
  let total = 0
  for (let token = 0; token < logits.length; token++) total += weight(token)
  for (let count = 64; ; count *= 8) {
    const tokens = largest(logits, Math.min(count, logits.length))
    if (count >= logits.length || sumOf(tokens, weight) >= topP * total)
      return shortestPrefix(tokens, weight, topP * total)
  }
}

const sumOf = (tokens: readonly number[], weight: (token: number) => number): number =>
  tokens.reduce((sum, token) => sum + weight(token), 0)

function shortestPrefix(tokens: number[], weight: (token: number) => number, wanted: number): number[] {
  let sum = 0
  const count = tokens.findIndex((token) => {
    sum += weight(token)
    return sum >= wanted
  })
  return count === -1 ? tokens : tokens.slice(0, count + 1)
}

/** The token that a number in [0, 1) falls on. */
export function pick({ tokens, probabilities }: Distribution, u: number): number {
  let sum = 0
  for (const [i, token] of tokens.entries()) {
    sum += probabilities[i]
    if (u < sum) return token
  }
  return tokens[tokens.length - 1]
}

/** Separates these draws from those that others make of the same seed. */
const SAMPLING_STREAM = 4113

/** The number in [0, 1) that decides a position at a step. */
export function uniformAt(seed: number, position: number, step: number): number {
  const draw = random(seed, SAMPLING_STREAM, position, step)
  return draw.uint32() * 2 ** -32 + (draw.uint32() >>> 12) * 2 ** -52
}

/** log softmax(logits * scale)[token] as a function of the token. */
export function logProbabilities(logits: Float32Array, scale: number): (token: number) => number {
  const highest = scale * logits[argmax(logits)]
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp(scale * logits[i] - highest)
  const normalizer = highest + Math.log(sum)
  return (token) => scale * logits[token] - normalizer
}

/** Index of the largest value, the first of equals. */
export function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i
  return best
}

/** Indices of the `count` largest values, descending, the first of equals first. */
export function largest(values: Float32Array, count: number): number[] {
  if (count >= values.length / 8) {
    const all = Array.from(values, (_, i) => i)
    return all.sort((a, b) => values[b] - values[a] || a - b).slice(0, count)
  }
  // A heap whose root is the least of those kept.
  const heap: number[] = []
  const below = (a: number, b: number) => values[a] < values[b] || (values[a] === values[b] && a > b)
  for (let i = 0; i < values.length; i++) {
    if (heap.length < count) {
      heap.push(i)
      for (let child = heap.length - 1; child > 0; ) {
        const parent = (child - 1) >> 1
        if (!below(heap[child], heap[parent])) break
        ;[heap[child], heap[parent]] = [heap[parent], heap[child]]
        child = parent
      }
    } else if (below(heap[0], i)) {
      heap[0] = i
      for (let parent = 0; ; ) {
        let least = parent
        for (const child of [2 * parent + 1, 2 * parent + 2])
          if (child < count && below(heap[child], heap[least])) least = child
        if (least === parent) break
        ;[heap[parent], heap[least]] = [heap[least], heap[parent]]
        parent = least
      }
    }
  }
  return heap.sort((a, b) => values[b] - values[a] || a - b)
}
