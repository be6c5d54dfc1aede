// What training teaches is what decoding computes: the logits of a noised block in [x_t ; x_0], with documents packed in
// a row, equal those of the same block forwarded against a cache that holds the document's clean prefix.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { random } from '../src/core/random.ts'
import { createForward, type Forward } from '../src/decode/forward.ts'
import type { Executor } from '../src/runtime/executor.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { logits } from './golden/logits.ts'
import { tinyLlama } from './tiny-llama.ts'

const TOLERANCE = 1e-4
const LENGTH = 128
const MASK = 39

const { model, weights } = tinyLlama()
const { vocabSize } = model.dimensions
let executor: Executor
let forward: Forward

beforeAll(async () => {
  executor = createExecutor({ threads: 1 })
  forward = await createForward(executor, model, weights, [MASK])
})

afterAll(() => executor.dispose())

interface Packed {
  /** Lengths of the documents of each row, in order. */
  documents: number[][]
  ids: number[]
  noised: number[]
  documentIds: number[]
  positions: number[]
}

function pack(documents: number[][]): Packed {
  const draw = random(0, documents.flat().length)
  const packed: Packed = { documents, ids: [], noised: [], documentIds: [], positions: [] }
  for (const row of documents)
    for (const [document, length] of row.entries())
      for (let position = 0; position < length; position++) {
        const id = draw.integer(MASK)
        packed.ids.push(id)
        packed.noised.push(draw.uniform() < 0.6 ? MASK : id)
        packed.documentIds.push(document)
        packed.positions.push(position)
      }
  return packed
}

/** Logits of the noised half, [rows * length, vocabulary]. */
async function training(packed: Packed, blockSize: number, aligned: boolean): Promise<Float32Array> {
  const rows = packed.documents.length
  const all = await logits(
    executor,
    model,
    weights,
    { blockDiffusion: blockSize, aligned },
    {
      rows,
      length: LENGTH,
      ids: [...packed.noised, ...packed.ids],
      documents: packed.documentIds,
      positions: packed.positions,
    },
  )
  return all.subarray(0, rows * LENGTH * vocabSize)
}

/** The same by decoding each document alone; `together`: the block before is cached by the forward that predicts. */
async function decoding(packed: Packed, blockSize: number, together: boolean): Promise<Float32Array> {
  const out = new Float32Array(packed.ids.length * vocabSize)
  let start = 0
  for (const length of packed.documents.flat()) {
    const cache = await forward.createCache()
    for (let block = 0; block < length; block += blockSize) {
      const size = Math.min(blockSize, length - block)
      const clean = packed.ids.slice(start + cache.length, start + block)
      if (!together && clean.length > 0) {
        await forward.run(cache, { ids: clean, blockSize, rows: [], store: clean.length })
        clean.length = 0
      }
      const ids = [...clean, ...packed.noised.slice(start + block, start + block + size)]
      const rows = Array.from({ length: size }, (_, i) => clean.length + i)
      const result = await forward.run(cache, { ids, blockSize, rows, store: clean.length, logits: true })
      out.set(result.logits!, (start + block) * vocabSize)
    }
    await cache.free()
    start += length
  }
  return out
}

function relativeError(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length)
  const largest = expected.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
  return actual.reduce((worst, x, i) => Math.max(worst, Math.abs(x - expected[i])), 0) / largest
}

const aligned = pack([
  [32, 64, 32],
  [96, 32],
])
// Neither lengths nor starts are multiples of a block, as in a row that was not packed for this block size.
const unaligned = pack([
  [5, 50, 1, 72],
  [33, 95],
])

for (const blockSize of [1, 4, 8, 32]) {
  test(`training logits equal cached decoding logits: block size ${blockSize}, documents on block boundaries`, async () => {
    const tiled = await training(aligned, blockSize, true)
    expect(relativeError(await training(aligned, blockSize, false), tiled)).toBeLessThan(TOLERANCE)
    expect(relativeError(await decoding(aligned, blockSize, true), tiled)).toBeLessThan(TOLERANCE)
    expect(relativeError(await decoding(aligned, blockSize, false), tiled)).toBeLessThan(TOLERANCE)
  })

  test(`training logits equal cached decoding logits: block size ${blockSize}, documents anywhere`, async () => {
    const whole = await training(unaligned, blockSize, false)
    expect(relativeError(await decoding(unaligned, blockSize, true), whole)).toBeLessThan(TOLERANCE)
    expect(relativeError(await decoding(unaligned, blockSize, false), whole)).toBeLessThan(TOLERANCE)
  })
}
