import { expect, test } from 'vitest'
import type { Cache } from './cache.ts'
import type { Pool } from './cache-pool.ts'
import { type BatchEntry, costOf, muchLess, nextBatch } from './forward-batch.ts'

const [short, long] = [{}, {}] as Pool[]

/** A request of so many new positions behind so many cached ones. */
const entry = (slot: number, positions: number, cached = 20, pool = short): BatchEntry => ({
  cache: { slot, length: cached, pool } as Cache,
  request: { ids: new Array<number>(positions).fill(1), blockSize: 1, rows: [0], store: 0 },
})
const slots = (batch: readonly BatchEntry[]) => batch.map(({ cache }) => cache.slot)

test('requests that are alike share a forward, in the order of their slots', () => {
  expect(slots(nextBatch([entry(2, 1), entry(0, 1), entry(1, 2)]))).toEqual([0, 1, 2])
  expect(nextBatch([])).toEqual([])
})

test('a piece of a prompt has a forward of its own', () => {
  expect(slots(nextBatch([entry(0, 128), entry(1, 128), entry(2, 1)]))).toEqual([0])
  expect(slots(nextBatch([entry(2, 1), entry(0, 128), entry(1, 1)]))).toEqual([1, 2])
})

test('texts in other buffers have forwards of their own', () => {
  expect(slots(nextBatch([entry(0, 1, 1900, long), entry(1, 1), entry(2, 1, 700, long)]))).toEqual([0, 2])
  expect(slots(nextBatch([entry(1, 1), entry(0, 1, 1900, long), entry(2, 1, 400)]))).toEqual([1, 2])
})

test('what costs much less may go first, whoever has waited longest', () => {
  const queue = [entry(0, 128), entry(1, 128), entry(2, 2), entry(3, 1)]
  expect(slots(nextBatch(queue, muchLess(costOf(queue[0]!))))).toEqual([2, 3])
  expect(slots(nextBatch(queue.slice(0, 2), muchLess(costOf(queue[0]!))))).toEqual([0])
})
