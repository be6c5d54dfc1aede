import { afterAll, beforeAll, expect, test } from 'vitest'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { random } from '../core/random.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createForward, type Forward } from './forward.ts'
import { createEngine, type Engine } from './index.ts'
import { logProbabilities } from './sampling.ts'

const MASK = 39
const { model, weights } = tinyLlama()
let executor: Executor
let forward: Forward
let plain: Engine
let shifted: Engine

beforeAll(async () => {
  executor = createExecutor({ threads: 1 })
  forward = await createForward(executor, model, weights, [MASK])
  plain = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: [] })
  shifted = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: [], shift: true })
})
afterAll(() => executor.dispose())

const text = (length: number): number[] => {
  const draw = random(5, length)
  return Array.from({ length }, () => draw.integer(MASK))
}

test('autoregressive scores are those of the logits', async () => {
  const ids = text(12)
  const scores = await plain.scoreAutoregressive(ids, { top: 2 })
  const cache = forward.createCache()
  const rows = ids.map((_, i) => i)
  const { logits } = await forward.run(cache, { ids, blockSize: 1, rows, store: 0, logits: true })
  await cache.free()
  const { vocabSize } = model.dimensions
  expect(scores[0]).toBe(undefined)
  for (let i = 1; i < ids.length; i++) {
    const row = logits!.subarray((i - 1) * vocabSize, i * vocabSize)
    expect(scores[i]!.logprob).toBeCloseTo(logProbabilities(row, 1)(ids[i]!), 5)
    expect(scores[i]!.top[0]!.logprob).toBeCloseTo(Math.max(...row.map((_, t) => logProbabilities(row, 1)(t))), 5)
  }
})

test('blocks of one token, predicted from the token before, are scored as autoregressively', async () => {
  const ids = text(9)
  const exact = await shifted.scoreAutoregressive(ids)
  const bound = await shifted.score(ids, { blockSize: 1, samples: 2 })
  expect(bound[0]).toBe(undefined)
  // The mask is never predicted in block decoding, so its share belongs to the others.
  for (let i = 1; i < ids.length; i++) {
    expect(bound[i]!.logprob).toBeGreaterThanOrEqual(exact[i]!.logprob - 1e-4)
    expect(bound[i]!.logprob).toBeLessThan(exact[i]!.logprob + 0.3)
  }
})

test.each([
  ['plain', () => plain, 0],
  ['shifted', () => shifted, 1],
])('the draws of the bound have its mean: %s', async (_, engine, before) => {
  const blockSize = 3
  const ids = text(2 * blockSize)
  const { vocabSize } = model.dimensions
  // Every set of masked positions of the second block, weighted as equation 6 has it.
  let exact = 0
  for (let set = 1; set < 2 ** blockSize; set++) {
    const masked = [0, 1, 2].filter((i) => set & (1 << i))
    const shown = ids.map((id, i) => (masked.includes(i - blockSize) ? MASK : id))
    const cache = forward.createCache()
    const rows = masked.map((i) => blockSize + i - before)
    const { logits } = await forward.run(cache, { ids: shown, blockSize, rows, store: 0, logits: true })
    await cache.free()
    const sum = masked.reduce((total, i, row) => {
      const values = logits!.subarray(row * vocabSize, (row + 1) * vocabSize)
      values[MASK] = Number.NEGATIVE_INFINITY
      return total + logProbabilities(values, 1)(ids[blockSize + i]!)
    }, 0)
    const sets = [3, 3, 1][masked.length - 1]!
    exact += ((blockSize / masked.length) * sum) / sets / blockSize
  }
  const scores = await engine().score(ids, { blockSize, samples: 900 })
  const estimate = scores.slice(blockSize).reduce((sum, score) => sum + score!.logprob, 0)
  expect(Math.abs(estimate - exact)).toBeLessThan(0.03 * Math.abs(exact))
})

test('a text longer than a prefill, and one that ends inside a block', async () => {
  const ids = text(21)
  const scores = await plain.score(ids, { blockSize: 8, top: 1 })
  expect(scores).toHaveLength(21)
  for (const [i, score] of scores.entries()) {
    expect(score!.logprob).toBeLessThanOrEqual(0)
    expect(score!.top).toHaveLength(1)
    expect(i).toBeLessThan(21)
  }
  // The same draws give the same scores.
  expect(await plain.score(ids, { blockSize: 8, top: 1 })).toEqual(scores)
})
