// Self-verification (S2D2, 2026): a block-diffusion model at block size 1 is an autoregressive model, so one causal forward
// over its own draft says how much of it that model would have written. Needs no training. Knows forwards, not blocks.
import type { Cache } from './cache.ts'
import type { Forward, ForwardRequest } from './forward.ts'

export interface DraftedText {
  /** The text up to the draft's end, the cached part included, with the drafted tokens in place. */
  ids: readonly number[]
  /** Positions that are drafted, ascending; those between them have their tokens. */
  positions: readonly number[]
  maskTokenId: number
  /** The state at i - 1 predicts token i; otherwise a mask in place of the token does, which sees what is before. */
  shift: boolean
}

/**
 * Tokens that the causal model confirms, from the first drafted position on, and its own one in place of the first that it
 * does not. The cache is left as it is.
 */
export async function verify(
  forward: Forward,
  cache: Cache,
  { ids, positions, maskTokenId, shift }: DraftedText,
  request: Pick<ForwardRequest, 'logitScale' | 'signal'>,
): Promise<{ position: number; token: number; confidence: number }[]> {
  const known = cache.length
  const end = positions[positions.length - 1] + 1
  const text = Array.from({ length: end - known }, (_, i) => known + i)
  // Position i of the text comes at time 2 i + 1, a mask that stands for it at time 2 i, at which only it is seen.
  const masks = shift ? [] : positions
  const all = [...text, ...masks]
  const result = await forward.run(cache, {
    ...request,
    ids: [...text.map((i) => ids[i]), ...masks.map(() => maskTokenId)],
    blockSize: {
      positions: all,
      blocks: [...text.map((i) => 2 * i + 1), ...masks.map((i) => 2 * i)],
      ends: [...text.map(() => 2 * end + 1), ...masks.map((i) => 2 * i + 1)],
    },
    rows: positions.map((i, index) => (shift ? i - 1 - known : text.length + index)),
    store: 0,
  })
  const wrong = positions.findIndex((position, i) => result.tokens[i] !== ids[position])
  return positions
    .slice(0, wrong === -1 ? positions.length : wrong + 1)
    .map((position, i) => ({ position, token: result.tokens[i], confidence: result.confidence[i] }))
}

/**
 * How many drafted tokens in a row a verification is expected to confirm, if each is right with its confidence, in order:
 * the sum over n of the product of the first n.
 */
export function expectedConfirmed(confidence: ArrayLike<number>): number {
  let sum = 0
  let product = 1
  for (let i = 0; i < confidence.length; i++) {
    product *= confidence[i]
    sum += product
  }
  return sum
}
