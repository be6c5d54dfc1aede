import { afterAll, beforeAll, expect, test } from 'vitest'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { TensorData } from '../core/types.ts'
import type { Executor, Session } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createForward, type Forward } from './forward.ts'
import { loadDecodeProgram } from './forward-program.ts'

const { model, weights } = tinyLlama()
const { layers, kvHeads, headDim, vocabSize } = model.dimensions
const allocated = new Set<string>()
let executor: Executor
let session: Session
let forward: Forward

beforeAll(async () => {
  const plain = createExecutor({ threads: 1 })
  executor = {
    ...plain,
    resize(names, ...content) {
      for (const name of names) allocated.add(name)
      return plain.resize(names, ...content)
    },
  }
  session = await loadDecodeProgram(executor, model, weights)
  forward = await createForward(executor, model, weights, [])
})

afterAll(() => executor.dispose())

const int64 = (shape: number[], values: number[]): TensorData => ({
  dtype: 'int64',
  shape,
  data: BigInt64Array.from(values, BigInt),
})

/** The buffer of the only cache that the program's input `past_key.0` and the like take. */
const cacheBuffer = (input: string): string =>
  [...allocated].find((name) => name.endsWith(input.replace('past_', '.')))!

test('rows of a batch may have caches and new tokens of different lengths', async () => {
  const [blockSize, capacity, length, width] = [4, 12, 4, kvHeads * headDim]
  const sequences = [
    { past: [1, 2, 3, 4, 5, 6, 7, 8], ids: [9, 10, 11, 12] },
    { past: [13, 14, 15, 16], ids: [17, 18, 19] },
  ]
  const feeds: Record<string, TensorData> = {}
  for (const kind of ['key', 'value'])
    for (let layer = 0; layer < layers; layer++)
      // What lies behind the filled part must not matter.
      feeds[`past_${kind}.${layer}`] = {
        dtype: 'float32',
        shape: [2, capacity, width],
        data: new Float32Array(2 * capacity * width).fill(7),
      }

  const expected: Float32Array[] = []
  for (const [row, { past, ids }] of sequences.entries()) {
    const cache = forward.createCache()
    await forward.run(cache, { ids: past, blockSize, rows: [], store: past.length })
    for (const name of Object.keys(feeds)) {
      const values = (await executor.read(cacheBuffer(name))) as Float32Array
      feeds[name].data.set(values.subarray(0, past.length * width) as never, row * capacity * width)
    }
    const { logits } = await forward.run(cache, { ids, blockSize, rows: ids.map((_, i) => i), store: 0, logits: true })
    expected.push(logits!)
    await cache.free()
  }

  const each = (value: (sequence: (typeof sequences)[number], i: number) => number) =>
    int64(
      [2, length],
      sequences.flatMap((sequence) => Array.from({ length }, (_, i) => value(sequence, i))),
    )
  const { logits } = await session.run(
    {
      ...feeds,
      input_ids: each(({ ids }, i) => ids[i] ?? 0),
      position_ids: each(({ past }, i) => past.length + i),
      block_ids: each(({ ids, past }, i) => (i < ids.length ? Math.floor((past.length + i) / blockSize) : -1)),
      block_ends: each(({ ids }, i) => (i < ids.length ? 2 ** 40 : 0)),
      cache_length: int64(
        [2],
        sequences.map(({ past }) => past.length),
      ),
      row_index: int64([7], [0, 1, 2, 3, 4, 5, 6]),
      logit_scale: { dtype: 'float32', shape: [7], data: new Float32Array(7).fill(1) },
      token_bias: { dtype: 'float32', shape: [vocabSize], data: new Float32Array(vocabSize) },
    },
    { logits: null },
  )
  const wanted = [...expected[0], ...expected[1]]
  const error = wanted.reduce((worst, x, i) => Math.max(worst, Math.abs(x - Number(logits.data[i]))), 0)
  expect(logits.data.length).toBe(wanted.length)
  expect(error).toBeLessThan(1e-4)
})

test('a tensor that is missing or too short is named', async () => {
  const broken = new Map(weights)
  broken.delete('model.norm.weight')
  await expect(loadDecodeProgram(executor, model, broken)).rejects.toThrow('model.norm.weight')
})
