import { afterAll, expect, it } from 'vitest'
import { createExecutor } from '../runtime/executor.ts'
import { createCaches } from './cache.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

it('a sequence that ends while its buffers grow leaves none behind, and none that are missed later', async () => {
  const sizes = { hiddenSize: 4, heads: 1, kvHeads: 1, headDim: 4 }
  const dimensions = { layers: 2, vocabSize: 8, maxPositions: 2048, ...sizes }
  const caches = createCaches(executor, dimensions, 'test')
  const first = caches.open()
  await caches.reserve(1)
  const growing = caches.reserve(600)
  const ended = first.free()
  const second = caches.open()
  await Promise.all([growing, ended])
  await caches.reserve(1)
  expect((await executor.read('test.value.1')).length).toBeGreaterThanOrEqual(256 * 4)
  const third = caches.open()
  const again = caches.reserve(1200)
  await Promise.all([second.free(), third.free(), again])
  await expect(executor.read('test.key.0')).rejects.toThrow(/no resident buffer/)
})
