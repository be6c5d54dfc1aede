// Storing a long text in a cache before the forward that predicts what follows it.
import type { Cache } from './cache.ts'
import type { Forward, ForwardRequest } from './forward.ts'

/** Positions per forward over a prompt: longer prompts are cached in parts, so that attention scores stay small. */
export const PREFILL = 512
/** The same beside other texts, which wait for each part. */
const PREFILL_BESIDE = 128

/** Stores the beginning of a text for causal decoding, until no more tokens are left than one forward takes. */
export async function prefill(
  forward: Forward,
  cache: Cache,
  ids: readonly number[],
  request: Pick<ForwardRequest, 'signal'>,
): Promise<void> {
  for (;;) {
    const most = forward.texts() > 1 ? PREFILL_BESIDE : PREFILL
    if (ids.length - cache.length <= most) return
    const next = ids.slice(cache.length, cache.length + most)
    await forward.run(cache, { ...request, ids: next, blockSize: 1, rows: [], store: most })
  }
}
