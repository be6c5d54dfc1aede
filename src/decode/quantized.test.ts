// Decoding with quantised weights against the same program with what they stand for in float32.
import { afterAll, describe, expect, it } from 'vitest'
import { distance } from '../../test/distance.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { BlockFormat, InferenceParameter, QuantizedParameter } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { dequantize, rowFormat } from '../quant/layout.ts'
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

function quantized(formatOf: BlockFormat | ((shape: readonly number[]) => BlockFormat)) {
  const weights = new Map<string, InferenceParameter>(tiny.weights)
  const floats = new Map(tiny.weights)
  for (const [name, { shape, data }] of tiny.weights) {
    if (shape.length !== 2) continue
    const format = typeof formatOf === 'function' ? formatOf(shape) : formatOf
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

  it('8 bits, activations in 8 bits', async () => {
    const { weights, floats } = quantized(rowFormat)
    const [actual, expected] = [await logits(tiny.model, weights), await logits(tiny.model, floats)]
    expect(distance(actual, expected)).toBeLessThan(0.04)
  })

  it.each([
    ['8 bits', { bits: 8, blockSize: 32, asymmetric: true }],
    ['8 bits, activations in 8 bits', rowFormat],
  ] as const)('%s: a head that is the embedding', async (_, format) => {
    const model = createModel({ ...tiny.model.config, tie_word_embeddings: true })
    const { weights, floats } = quantized(format)
    const [actual, expected] = [await logits(model, weights), await logits(model, floats)]
    expect(distance(actual, expected)).toBeLessThan(0.04)
  })
})

const kinds = {
  float32: () => tiny.weights,
  '4 bits': () => quantized({ bits: 4, blockSize: 32, asymmetric: false }).weights,
  '8 bits': () => quantized({ bits: 8, blockSize: 32, asymmetric: false }).weights,
  '8 bits, activations in 8 bits': () => quantized(rowFormat).weights,
}

describe.each(Object.entries(kinds))('with weights of %s', (_, make) => {
  const weights: ReadonlyMap<string, InferenceParameter> = make()

  it('a token at a time gives what all at once give, bit for bit', async () => {
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

  it('sequences that share forwards get what each gets alone, bit for bit', async () => {
    const { vocabSize } = tiny.model.dimensions
    const textOf = (seed: number) => Array.from({ length: 40 }, (_, i) => (i * i + seed * i + seed) % vocabSize)
    const forward = await createForward(executor, tiny.model, weights, [])
    /** Reads a text in parts of these lengths; gives the logits of all positions. */
    const read = async (seed: number, parts: readonly number[]) => {
      const cache = forward.createCache()
      const text = textOf(seed)
      const logits: number[] = []
      for (const length of parts) {
        const ids = text.slice(cache.length, cache.length + length)
        const rows = ids.map((_, i) => i)
        logits.push(...(await forward.run(cache, { ids, blockSize: 1, rows, store: length, logits: true })).logits!)
      }
      await cache.free()
      return logits
    }
    const lengths = [[8, ...new Array(32).fill(1)], [5, 2, 1, 1, 1, 30], new Array(10).fill(4), [16, 8, 4, 12]]
    const alone: number[][] = []
    for (const [i, parts] of lengths.entries()) alone.push(await read(i, parts))
    const together = await Promise.all(lengths.map((parts, i) => read(i, parts)))
    for (const [i, logits] of together.entries()) expect(logits).toEqual(alone[i])
    await forward.dispose()
  })
})
