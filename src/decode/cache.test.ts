// Room for keys and values: what stays when texts end, and what a long text takes after many short ones.
import { afterAll, expect, it } from 'vitest'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { type Cache, createCaches } from './cache.ts'

const real = createExecutor({ threads: 1 })
afterAll(() => real.dispose())
/** Elements of each buffer. */
const sizes = new Map<string, number>()
const executor: Executor = {
  ...real,
  async resize(names, dtype, length, moves) {
    for (const name of names) sizes.set(name, length)
    await real.resize(names, dtype, length, moves)
  },
  async free(...names) {
    for (const name of names) sizes.delete(name)
    await real.free(...names)
  },
}
const { model } = tinyLlama()
const { kvHeads, headDim } = model.dimensions
const positions = () => Math.max(0, ...sizes.values()) / (kvHeads * headDim)

it('keeps room for short texts, gives back that of long ones, and all of it in the end', async () => {
  const caches = createCaches(executor, model.dimensions, 'lasting')
  const short = caches.open()
  await short.pool.reserve(short.slot, 1, 40)
  await short.free()
  expect(positions()).toBe(64)
  const long = caches.open()
  await long.pool.reserve(long.slot, 1, 600)
  expect(positions()).toBe(640)
  await long.free()
  expect(positions()).toBe(0)
  const again = caches.open()
  await again.pool.reserve(again.slot, 1, 40)
  await again.free()
  await caches.release()
  expect(sizes.size).toBe(0)
})

it('gives a long text no more than its own room after many short ones', async () => {
  const caches = createCaches(executor, model.dimensions, 'burst')
  const burst = Array.from({ length: 8 }, () => caches.open())
  await burst[0]!.pool.reserve(0, 8, 40)
  expect(positions()).toBe(8 * 64)
  for (const cache of burst) await cache.free()
  const long = caches.open()
  await long.pool.reserve(long.slot, 1, 4000)
  expect(positions()).toBe(4032)
  await long.free()
})

/** The first value of each of the first `count` positions of a cache. */
async function marks({ pool, slot }: Cache, count: number): Promise<number[]> {
  const width = kvHeads * headDim
  const values = (await executor.read(pool.residents[0]!, pool.startOf(slot), count * width)) as Float32Array
  return Array.from({ length: count }, (_, i) => values[i * width]!)
}

/** Stores positions whose first value is their token. */
async function write(cache: Cache, tokens: readonly number[]): Promise<void> {
  const width = kvHeads * headDim
  await cache.makeRoom(tokens.length)
  await cache.pool.reserve(cache.slot, 1, tokens.length)
  for (const [i, token] of tokens.entries())
    await executor.write(
      cache.pool.residents[0]!,
      Float32Array.of(token),
      cache.pool.startOf(cache.slot) + (cache.length + i) * width,
    )
  cache.append(tokens)
}

const numbers = (count: number, first = 0) => Array.from({ length: count }, (_, i) => first + i)

it('moves a text that grows long to buffers of its own, and gives others no more room for it', async () => {
  const caches = createCaches(executor, model.dimensions, 'growing')
  const [one, other, grown] = [caches.open(), caches.open(), caches.open()]
  await write(one, numbers(50, 1000))
  await write(grown, numbers(50))
  await write(other, numbers(50, 2000))
  expect(grown.pool).toBe(one.pool)
  await write(grown, numbers(500, 50))
  expect(grown.pool).not.toBe(one.pool)
  expect(await marks(grown, 550)).toEqual(numbers(550))
  expect(await marks(one, 50)).toEqual(numbers(50, 1000))
  expect(await marks(other, 50)).toEqual(numbers(50, 2000))
  expect(sizes.get(one.pool.residents[0]!)! / (kvHeads * headDim)).toBeLessThanOrEqual(4 * 64)
  expect(caches.count).toBe(3)
  for (const cache of [one, other, grown]) await cache.free()
  expect(caches.count).toBe(0)
  await caches.release()
})

it('shares the beginning of a text with one of another length, wherever that lies', async () => {
  const caches = createCaches(executor, model.dimensions, 'sharing', 2)
  const sharing = { group: '', step: 1 }
  const open = (tokens: readonly number[]) => caches.openWith({ tokens, blockSize: 1, sharing })
  const long = await open(numbers(900))
  await write(long, numbers(900))
  // The source is still being written.
  const short = await open([...numbers(300), 9999, 9998])
  expect(short.length).toBe(300)
  expect(short.pool).not.toBe(long.pool)
  expect(await marks(short, 300)).toEqual(numbers(300))
  await long.free()
  await short.free()
  // What is kept goes on where it lies, and grows from there.
  const again = await open([...numbers(300), 9999, 9998, 7])
  expect(again.length).toBe(300)
  await write(again, numbers(700, 5000))
  expect(await marks(again, 1000)).toEqual([...numbers(300), ...numbers(700, 5000)])
  await again.free()
  await caches.release()
})

it('gives no two texts one slot, whoever opens while a beginning is copied', async () => {
  const caches = createCaches(executor, model.dimensions, 'racing')
  const sharing = { group: '', step: 1 }
  const first = await caches.openWith({ tokens: numbers(50), blockSize: 1, sharing })
  await write(first, numbers(50))
  const copying = caches.openWith({ tokens: numbers(60), blockSize: 1, sharing })
  const other = caches.open()
  const copied = await copying
  expect(new Set([first.slot, copied.slot, other.slot]).size).toBe(3)
  expect(await marks(copied, 50)).toEqual(numbers(50))
  for (const cache of [first, copied, other]) await cache.free()
  await caches.release()
})
