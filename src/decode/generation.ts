// What a generation reports beside its tokens: forwards, and the time without the consumer's.

import type { Cache } from './cache.ts'
import type { DecodeStep, Generation, GenerationResult } from './types.ts'

export interface Account {
  promptTokens: number
  /** The new tokens begin at this index of what `decode` returns. */
  from: number
  eosTokenIds: readonly number[]
}

/**
 * Decodes with a cache that is freed at the end, however that comes. `decode` yields a step after every forward and returns
 * the text.
 */
export async function* generation(
  { promptTokens, from, eosTokenIds }: Account,
  open: () => Cache | Promise<Cache>,
  decode: (cache: Cache) => AsyncGenerator<DecodeStep, number[], void>,
): Generation {
  const clock = stopwatch()
  let forwards = 0
  let prefillSeconds = 0
  const cache = await open()
  const cachedTokens = cache.length
  const result = (ids: readonly number[], stop: GenerationResult['stop']): GenerationResult => {
    clock.pause()
    const tokens = ids.length
    const seconds = clock.seconds()
    const rates = { tpf: tokens / forwards, tps: tokens / seconds }
    return { ids: [...ids], stop, tokens, forwards, ...rates, seconds, promptTokens, cachedTokens, prefillSeconds }
  }
  try {
    const decoding = decode(cache)
    for (;;) {
      const { done, value } = await decoding.next()
      if (done) {
        const ids = value.slice(from)
        return result(ids, eosTokenIds.includes(ids[ids.length - 1]) ? 'eos' : 'length')
      }
      clock.pause()
      forwards++
      if (forwards === 1) prefillSeconds = clock.seconds()
      const enough = yield value
      clock.resume()
      if (enough) return result(enough, 'stop')
    }
  } finally {
    await cache.free()
  }
}

/** Time since the start without the pauses. */
function stopwatch() {
  let total = 0
  let since = performance.now()
  return {
    pause() {
      total += performance.now() - since
    },
    resume() {
      since = performance.now()
    },
    seconds: () => total / 1000,
  }
}
