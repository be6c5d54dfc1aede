// Decoding with quantised weights against the same program with what they stand for in float32.
import { afterAll, describe, expect, it } from 'vitest'
import { distance } from '../../test/distance.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { BlockFormat, InferenceParameter, QuantizedParameter } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { dequantize } from '../quant/layout.ts'
import { roundToNearest } from '../quant/round.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createForward } from './forward.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const tiny = tinyLlama({ hidden_size: 64, intermediate_size: 128 })
const ids = [3, 1, 12, 0, 7, 7, 5]

async function logits(
  model: typeof tiny.model,
  weights: ReadonlyMap<string, InferenceParameter>,
): Promise<Float32Array> {
  const forward = await createForward(executor, model, weights, [])
  const cache = forward.createCache()
  await forward.run(cache, { ids: ids.slice(0, 3), blockSize: 1, rows: [], store: 3 })
  const request = { ids: ids.slice(3), blockSize: 1, rows: [0, 1, 2, 3], store: 0, logits: true }
  const { logits } = await forward.run(cache, request)
  await cache.free()
  await forward.dispose()
  return logits!
}

function quantized(format: BlockFormat) {
  const weights = new Map<string, InferenceParameter>(tiny.weights)
  const floats = new Map(tiny.weights)
  for (const [name, { shape, data }] of tiny.weights) {
    if (shape.length !== 2) continue
    const parameter: QuantizedParameter = roundToNearest(shape, data, format)
    weights.set(name, parameter)
    floats.set(name, { shape, data: dequantize(parameter) })
  }
  return { weights, floats }
}

describe('a forward with weights of', () => {
  for (const bits of [4, 8] as const)
    for (const asymmetric of [false, true])
      for (const blockSize of [16, 32, 64])
        it(`${bits} bits, ${asymmetric ? 'asymmetric' : 'symmetric'}, in blocks of ${blockSize}`, async () => {
          const { weights, floats } = quantized({ bits, blockSize, asymmetric })
          const [actual, expected] = [await logits(tiny.model, weights), await logits(tiny.model, floats)]
          // The kernels round activations to 8 bits per block, so it is not 0.
          expect(distance(actual, expected)).toBeLessThan(0.04)
        })

  it('a head that is the embedding', async () => {
    const model = createModel({ ...tiny.model.config, tie_word_embeddings: true })
    const { weights, floats } = quantized({ bits: 8, blockSize: 32, asymmetric: true })
    const [actual, expected] = [await logits(model, weights), await logits(model, floats)]
    expect(distance(actual, expected)).toBeLessThan(0.04)
  })
})

it.each(['float32', '4 bits'])('%s: a token at a time gives what all at once give, bit for bit', async (kind) => {
  const weights = kind === 'float32' ? tiny.weights : quantized({ bits: 4, blockSize: 32, asymmetric: false }).weights
  const forward = await createForward(executor, tiny.model, weights, [])
  const { vocabSize } = tiny.model.dimensions
  // Some more than fit into the first view of a cache.
  const text = Array.from({ length: 70 }, (_, i) => (i * i + 3 * i) % vocabSize)
  const read = async (parts: readonly number[]) => {
    const cache = forward.createCache()
    const rows: number[] = []
    for (const length of parts) {
      const next = text.slice(cache.length, cache.length + length)
      const all = next.map((_, i) => i)
      const result = await forward.run(cache, { ids: next, blockSize: 1, rows: all, store: length, logits: true })
      expect(result.tokens).toHaveLength(length)
      rows.push(...result.logits!)
    }
    await cache.free()
    return rows
  }
  const whole = await read([70])
  expect(whole).toHaveLength(70 * vocabSize)
  expect(await read(new Array(70).fill(1))).toEqual(whole)
  expect(await read([1, 8, 2, 33, 26])).toEqual(whole)
  await forward.dispose()
})
