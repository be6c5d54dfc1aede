// Next-token decoding: the logits at position i predict token i + 1, one forward each.
import type { Cache } from './cache.ts'
import type { Tracker } from './constraints/index.ts'
import type { Forward } from './forward.ts'
import type { Predictor } from './predict.ts'
import { prefill } from './prefill.ts'
import type { DecodeStep } from './types.ts'

export interface AutoregressiveSettings {
  predictor: Predictor
  /** Which tokens the text may go on with. Default: any. */
  tracker?: Tracker
  logitScale?: number
  signal?: AbortSignal
}

/** Yields a step after every forward; returns the text up to its end. The cache may hold a beginning of it. */
export async function* decodeAutoregressive(
  forward: Forward,
  cache: Cache,
  { prompt, end, eosTokenIds }: { prompt: readonly number[]; end: number; eosTokenIds: readonly number[] },
  { predictor, tracker, logitScale, signal }: AutoregressiveSettings,
): AsyncGenerator<DecodeStep, number[], void> {
  const { logits } = predictor
  const ids = [...prompt]
  await prefill(forward, cache, ids, { signal })
  const ended = () => ids.length > prompt.length && eosTokenIds.includes(ids[ids.length - 1])
  for (let step = 0; !ended() && ids.length < end; step++) {
    const given = ids.slice(cache.length)
    const request = { ids: given, blockSize: 1, rows: [given.length - 1], store: given.length }
    const result = await forward.run(cache, { ...request, logits, logitScale, signal })
    const position = ids.length
    tracker?.open(1)
    const next = await tracker?.inTurns(() => tracker.allowed(step))
    const allowed = next && (() => ({ tokens: next, leading: true }))
    const { tokens, details } = predictor.predict(result, 0, [position], step, () => ids, allowed)
    const [token] = tokens
    await tracker?.inTurns(() => tracker.commit(step, token))
    tracker?.settle(step + 1)
    ids.push(token)
    const committed = { position, token, block: position, ...details(0, token) }
    yield { step, tokens: [committed], final: position + 1 }
  }
  return ids
}
