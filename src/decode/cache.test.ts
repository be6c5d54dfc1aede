// Room for keys and values: what stays when texts end, and what a long text takes after many short ones.
import { afterAll, expect, it } from 'vitest'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createCaches } from './cache.ts'

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
  await caches.reserve(short.slot, 1, 40)
  await short.free()
  expect(positions()).toBe(64)
  const long = caches.open()
  await caches.reserve(long.slot, 1, 600)
  expect(positions()).toBe(640)
  await long.free()
  expect(positions()).toBe(0)
  const again = caches.open()
  await caches.reserve(again.slot, 1, 40)
  await again.free()
  await caches.release()
  expect(sizes.size).toBe(0)
})

it('gives a long text no more than its own room after many short ones', async () => {
  const caches = createCaches(executor, model.dimensions, 'burst')
  const burst = Array.from({ length: 8 }, () => caches.open())
  await caches.reserve(0, 8, 40)
  expect(positions()).toBe(8 * 64)
  for (const cache of burst) await cache.free()
  const long = caches.open()
  await caches.reserve(long.slot, 1, 4000)
  expect(positions()).toBe(4032)
  await long.free()
})
