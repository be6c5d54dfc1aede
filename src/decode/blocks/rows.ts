// What a forward runs over: which positions are its rows, and which of them the cache stores.
import type { Cache } from '../cache.ts'
import type { Forward, ForwardRequest } from '../forward.ts'
import { PREFILL } from '../prefill.ts'
import { range } from './partition.ts'
import { isMasked, type State } from './state.ts'

/**
 * The positions that the next forward runs over, up to `stop`, and which of them, by index, it stores; what lies before
 * `final` is final. The beginning of a long text is stored first.
 */
export async function nextRows(
  state: State,
  forward: Forward,
  cache: Cache,
  { final, stop }: { final: number; stop: number },
): Promise<{ positions: number[]; store: number[] }> {
  const { ids, masked, stored, partition, settings } = state
  const { reuse, shift, signal } = settings
  if (reuse && cache.length - stored.size < final && stored.size > 0) {
    // The leading block is finished: its keys and values are computed again, now that all of it is known.
    cache.truncate(cache.length - stored.size)
    stored.clear()
  }
  for (let start = cache.length - stored.size; final - start > PREFILL; ) {
    const cut = partition.boundary(start, PREFILL)
    if (cut > final) break
    const blockSize = layoutOf(state, range(start, cut))
    await forward.run(cache, { ids: ids.slice(start, cut), blockSize, rows: [], store: cut - start, signal })
    start = cut
  }
  const positions = range(cache.length - stored.size, stop).filter((i) => !stored.has(i))
  // A position that predicts a mask, of a block that has not begun too, is needed again.
  const predictsMask = (i: number) => shift && isMasked(state, i + 1)
  const isKept = (i: number) => reuse && !masked.has(i) && !predictsMask(i) && i >= final + (shift ? 1 : 0)
  return { positions, store: positions.flatMap((i, index) => (i < final || isKept(i) ? [index] : [])) }
}

export function layoutOf(
  { document, settings, partition }: State,
  positions: readonly number[],
): ForwardRequest['blockSize'] {
  if (typeof document.blocks === 'number' && !settings.reuse) return document.blocks
  return { positions, blocks: positions.map(partition.blockAt) }
}
