// How probable a text is, token by token: exactly where tokens are predicted from left to right, else as the evidence lower
// bound of block diffusion. Knows forwards, not graphs. Uses no Node API.
import { random } from '../core/random.ts'
import type { Cache } from './cache.ts'
import type { Forward, ForwardResult } from './forward.ts'
import { PREFILL } from './prefill.ts'
import { argmax, largest, logProbabilities } from './sampling.ts'

export interface ScoreOptions {
  /** How many of the most probable tokens are reported for each position. Default 0. */
  top?: number
  /** Diffusion: noise draws per block, one forward each. Default 8. */
  samples?: number
  /** Diffusion: of the draws. Default 0. */
  seed?: number
  signal?: AbortSignal
}

export interface TokenScore {
  /** Autoregressive: ln p(token | those before). Diffusion: its part of the lower bound of the block's ln p. */
  logprob: number
  /**
   * The most probable tokens of the position, the best first. Diffusion: the token itself, before it another one where the
   * model preferred that in any draw.
   */
  top: { token: number; logprob: number }[]
}

/** How many values of logits are copied out of the executor at a time. */
const MOST_LOGITS = 2 ** 22

/** Exact log-probabilities; undefined for the first token, which nothing predicts. */
export async function scoreAutoregressive(
  forward: Forward,
  ids: readonly number[],
  { vocabSize, top = 0, signal }: ScoreOptions & { vocabSize: number },
): Promise<(TokenScore | undefined)[]> {
  const scores: (TokenScore | undefined)[] = [undefined]
  const part = Math.max(1, Math.min(PREFILL, Math.floor(MOST_LOGITS / vocabSize)))
  const cache = forward.createCache()
  try {
    while (cache.length < ids.length - 1) {
      const start = cache.length
      const next = ids.slice(start, Math.min(start + part, ids.length - 1))
      const rows = next.map((_, i) => i)
      const request = { ids: next, blockSize: 1, rows, store: next.length, logits: true }
      const result = await forward.run(cache, { ...request, signal })
      for (const [i, logits] of rowsOf(result).entries()) {
        const logProbability = logProbabilities(logits, 1)
        scores.push({
          logprob: Math.min(0, logProbability(ids[start + i + 1])),
          top: largest(logits, top).map((token) => ({ token, logprob: logProbability(token) })),
        })
      }
    }
    return scores
  } finally {
    await cache.free()
  }
}

const SCORE_STREAM = 7331

/**
 * The evidence lower bound at a block size: for a block of n tokens the mean over draws of n/k times the log-probabilities of
 * the k that are masked, k uniform in 1..n (Nie et al. 2025, LLaDA, equation 6, per block). The k of the draws are spread
 * evenly, and every draw is a function of seed, block and number. The sum over a text estimates the bound without bias; the
 * part of one token varies with the draws. Masks stand behind the end of the text, as in decoding.
 */
export async function scoreBlocks(
  forward: Forward,
  ids: readonly number[],
  options: ScoreOptions & { blockSize: number; maskTokenId: number; shift: boolean; maxPositions: number },
): Promise<(TokenScore | undefined)[]> {
  const { blockSize, maskTokenId: mask, shift, maxPositions, top = 0, samples = 8, seed = 0, signal } = options
  const before = shift ? 1 : 0
  const scores: (TokenScore | undefined)[] = ids.map(() => undefined)
  const cache = forward.createCache()
  try {
    for (let start = 0; start < ids.length; start += blockSize) {
      await prefill(forward, cache, ids.slice(0, start), { before, blockSize, signal })
      const stop = Math.min(start + blockSize, maxPositions)
      const tokens = range(Math.max(start, before), Math.min(stop, ids.length))
      const sums = tokens.map(() => ({ own: 0, best: 0, other: undefined as number | undefined }))
      for (let draw = 0; draw < samples && tokens.length > 0; draw++) {
        const draws = random(seed, SCORE_STREAM, start, draw)
        const count = 1 + Math.floor((tokens.length * (draw + draws.uniform())) / samples)
        const masked = draws.shuffle(tokens.map((_, i) => i)).slice(0, count)
        const hidden = new Set(masked.map((i) => tokens[i]))
        const text = range(cache.length, stop).map((i) => (i >= ids.length || hidden.has(i) ? mask : ids[i]))
        const rows = masked.map((i) => tokens[i] - before - cache.length)
        const request = { ids: text, blockSize, rows, store: 0, logits: true }
        const result = await forward.run(cache, signal ? { ...request, signal } : request)
        const weight = tokens.length / count / samples
        for (const [row, logits] of rowsOf(result).entries()) {
          const sum = sums[masked[row]]
          const token = ids[tokens[masked[row]]]
          logits[mask] = Number.NEGATIVE_INFINITY
          const best = argmax(logits)
          const logProbability = logProbabilities(logits, 1)
          sum.own += weight * Math.min(0, logProbability(token))
          sum.best += weight * Math.min(0, logProbability(best))
          if (best !== token) sum.other = best
        }
      }
      for (const [i, { own, best, other }] of sums.entries()) {
        const given = { token: ids[tokens[i]], logprob: own }
        const all = other === undefined ? [given] : [{ token: other, logprob: best }, given]
        scores[tokens[i]] = { logprob: own, top: all.slice(0, top) }
      }
    }
    return scores
  } finally {
    await cache.free()
  }
}

/** Stores whole blocks, a prefill at a time, but for the last `before` tokens, which the block's other tokens see all the same. */
async function prefill(
  forward: Forward,
  cache: Cache,
  ids: readonly number[],
  { before, blockSize, signal }: { before: number; blockSize: number; signal: AbortSignal | undefined },
): Promise<void> {
  const end = ids.length - before
  while (cache.length < end) {
    const start = cache.length
    const boundary = (Math.floor(start / blockSize) + Math.max(1, Math.floor(PREFILL / blockSize))) * blockSize
    const next = ids.slice(start, boundary)
    const request = { ids: next, blockSize, rows: [], store: Math.min(next.length, end - start) }
    await forward.run(cache, signal ? { ...request, signal } : request)
  }
}

function rowsOf({ logits, tokens }: ForwardResult): Float32Array[] {
  const width = (logits as Float32Array).length / tokens.length
  return tokens.map((_, i) => (logits as Float32Array).subarray(i * width, (i + 1) * width))
}

const range = (start: number, end: number): number[] =>
  Array.from({ length: Math.max(0, end - start) }, (_, i) => start + i)
