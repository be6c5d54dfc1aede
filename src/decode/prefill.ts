// Storing a long text in a cache before the forward that predicts what follows it.
import type { Cache } from './cache.ts'
import type { Forward, ForwardRequest } from './forward.ts'

/** Positions per forward over a prompt: longer prompts are cached in parts, so that attention scores stay small. */
export const PREFILL = 512

/** Stores the beginning of a text for causal decoding, until no more than `PREFILL` of its tokens are left. */
export async function prefill(
  forward: Forward,
  cache: Cache,
  ids: readonly number[],
  request: Pick<ForwardRequest, 'signal'>,
): Promise<void> {
  while (ids.length - cache.length > PREFILL) {
    const next = ids.slice(cache.length, cache.length + PREFILL)
    await forward.run(cache, { ...request, ids: next, blockSize: 1, rows: [], store: PREFILL })
  }
}
