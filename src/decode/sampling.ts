// From the logits of a position to a token: penalties and biases, the probability that counts as confidence, and a draw from
// the tempered and filtered distribution. Knows nothing about blocks or forwards.
import { random } from '../core/random.ts'
import { SettingError } from '../core/types.ts'
import { checkSettings, type DecodingSettings, givenSettings, settingDefault } from './settings.ts'

const samplingNames = ['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed'] as const
type Sampling = Pick<DecodingSettings, (typeof samplingNames)[number]>

/** Settings of the table that sampling reads, and what only a request can say. */
export interface SamplingOptions extends Sampling {
  /** Added to the logits: token -> bias; -Infinity forbids it. */
  logitBias?: ReadonlyMap<number, number> | undefined
  /** Return log-probabilities, and those of this many most probable tokens. Default: none. */
  logprobs?: number | undefined
}

const defaults = Object.fromEntries(
  samplingNames.map((name) => [name, settingDefault(name)]),
) as unknown as Required<Sampling>

/** The table's settings among the options, with its defaults for what is left out. */
export const withSamplingDefaults = (options: SamplingOptions): Required<Sampling> => ({
  ...defaults,
  ...givenSettings(options),
})

/** Throws UserError for a setting out of its range, or two that contradict. */
export function checkSampling(options: SamplingOptions, vocabSize: number): void {
  checkSettings(givenSettings(options))
  const { logprobs, logitBias } = options
  if (logprobs !== undefined && !(Number.isSafeInteger(logprobs) && logprobs >= 0 && logprobs <= MOST_LOGPROBS))
    throw new SettingError('logprobs', `expected a whole number from 0 to ${MOST_LOGPROBS}, not ${logprobs}`)
  for (const [token, bias] of logitBias ?? []) {
    if (!Number.isInteger(token) || token < 0 || token >= vocabSize)
      throw new SettingError(
        'logitBias',
        `has the token id ${token}, but the model's vocabulary has ${vocabSize} entries`,
      )
    if (Number.isNaN(bias) || bias === Number.POSITIVE_INFINITY)
      throw new SettingError('logitBias', `expected a number below infinity for token ${token}, not ${bias}`)
  }
  const { temperature, topK, topP, minP } = withSamplingDefaults(options)
  if (temperature > 0) return
  const name = (topK > 0 && 'topK') || (topP < 1 && 'topP') || (minP > 0 && 'minP')
  if (name)
    throw new SettingError(
      name,
      (nameOf) => `chooses what to draw from, but ${nameOf('temperature')} is 0: nothing is drawn`,
    )
}

const MOST_LOGPROBS = 100

/** The most probable token needs no logits outside the graph; anything else does. */
export const needsLogits = (options: SamplingOptions): boolean =>
  draws(options) ||
  withSamplingDefaults(options).repetitionPenalty !== 1 ||
  (options.logitBias?.size ?? 0) > 0 ||
  options.logprobs !== undefined

/** Whether tokens are drawn; otherwise the most probable one is taken. */
export const draws = (options: SamplingOptions): boolean => withSamplingDefaults(options).temperature > 0

/** Applies penalty and biases in place. `present` are the tokens of the text. */
export function adjustLogits(logits: Float32Array, options: SamplingOptions, present: Iterable<number>): void {
  const { repetitionPenalty } = withSamplingDefaults(options)
  if (repetitionPenalty !== 1)
    for (const token of new Set(present)) {
      const value = logits[token]
      logits[token] = value > 0 ? value / repetitionPenalty : value * repetitionPenalty
    }
  for (const [token, bias] of options.logitBias ?? []) logits[token] += bias
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
  const { temperature, topK, topP, minP } = withSamplingDefaults(options)
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
