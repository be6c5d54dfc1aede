// Evaluation without a trainer: the same likelihood, and that of quantised weights as they are run.
import fc from 'fast-check'
import { afterAll, expect, it } from 'vitest'
import { batch, model, options, packed, weights } from '../../test/train/tiny.ts'
import type { InferenceParameter, Parameter } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import { dequantize } from '../quant/layout.ts'
import { roundToNearest } from '../quant/round.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createEvaluator } from './evaluator.ts'
import { createTrainer } from './trainer.ts'
import type { EvaluationOptions } from './types.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const batches = [batch(1), batch(2)]
const measures: EvaluationOptions[] = [
  { blockSize: 'ar', seed: 0 },
  { blockSize: 4, seed: 1, samples: 2 },
  { blockSize: 32, seed: 1 },
]

it('gives the likelihood that the trainer gives', async () => {
  const trainer = await createTrainer(executor, model, weights(), options)
  const evaluator = createEvaluator(executor, model, weights(), options)
  for (const measure of measures) {
    const expected = await trainer.evaluate(batches, measure)
    const actual = await evaluator.evaluate(batches, measure)
    expect(actual.tokens).toBe(expected.tokens)
    expect(actual.nll).toBeCloseTo(expected.nll, 5)
  }
  await evaluator.dispose()
  await trainer.dispose()
})

it('gives the same autoregressive bits per byte whatever the block size, the packing and the length of rows', async () => {
  const evaluator = createEvaluator(executor, model, weights(), options)
  const measure = (batches: Batch[]) => evaluator.evaluate(batches, { blockSize: 'ar', seed: 0 })
  const size = fc.integer({ min: 2, max: 20 })
  const layouts = fc.record({
    rows: fc.constantFrom(1, 3),
    length: fc.constantFrom(32, 64),
    blockSize: fc.constantFrom(1, 4, 16),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(size, { minLength: 2, maxLength: 3 }),
      fc.nat(3),
      layouts,
      async (lengths, prompt, layout) => {
        const documents = lengths.map((tokens) => tokens + prompt)
        const alone = documents.map((_, i) =>
          packed(
            7,
            documents.map((tokens, j) => (i === j ? tokens : 0)),
            { rows: 1, length: 32, blockSize: 1, prompt },
          ),
        )
        const [expected, actual] = [
          await measure(alone),
          await measure([packed(7, documents, { ...layout, rows: 3, prompt })]),
        ]
        expect(actual.tokens).toBe(expected.tokens)
        expect(actual.bytes).toBe(expected.bytes)
        expect(actual.bitsPerByte).toBeCloseTo(expected.bitsPerByte, 4)
        expect([actual.stderr, actual.bitsPerByteStderr]).toEqual([0, 0])
      },
    ),
    { numRuns: 12 },
  )
  await evaluator.dispose()
})

const sizes = { rows: 2, length: 64, blockSize: 8 }
const held = [packed(1, [20, 9, 31], sizes), packed(2, [40, 30], sizes)]

it.each([
  [4, 2],
  [8, 4],
  [64, 2],
  [64, 8],
])('states the error of the bound that other seeds show: block size %i, %i draws', async (blockSize, samples) => {
  const evaluator = createEvaluator(executor, model, weights(), options)
  const results = []
  for (let seed = 0; seed < 60; seed++) results.push(await evaluator.evaluate(held, { blockSize, seed, samples }))
  await evaluator.dispose()
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length
  const nlls = results.map(({ nll }) => nll)
  const spread = Math.sqrt((mean(nlls.map((nll) => (nll - mean(nlls)) ** 2)) * 60) / 59)
  const stated = Math.sqrt(mean(results.map(({ stderr }) => stderr ** 2)))
  // The spread of 60 values is known to a tenth.
  expect(stated / spread).toBeGreaterThan(0.7)
  expect(stated / spread).toBeLessThan(1.4)
})

it('is steadier with more draws, exact at block size 1, and gives the same twice', async () => {
  const evaluator = createEvaluator(executor, model, weights(), options)
  const few = await evaluator.evaluate(held, { blockSize: 8, seed: 1, samples: 2 })
  const many = await evaluator.evaluate(held, { blockSize: 8, seed: 1, samples: 16 })
  expect(many.stderr).toBeLessThan(0.6 * few.stderr)
  expect(Math.abs(many.nll - few.nll)).toBeLessThan(4 * few.stderr)
  for (const samples of [1, 2]) expect(await evaluator.evaluate(held, { blockSize: 8, seed: 1, samples })).toEqual(few)
  const exact = await evaluator.evaluate(held, { blockSize: 1, seed: 1 })
  expect(exact.stderr).toBeLessThan(1e-6)
  expect(await evaluator.evaluate(held, { blockSize: 1, seed: 2 })).toEqual(exact)
  await expect(evaluator.evaluate(held, { blockSize: 8, seed: 1, samples: 0 })).rejects.toThrow(/samples is 0/)
  await evaluator.dispose()
})

it('runs quantised weights as such: close to what they stand for, not equal', async () => {
  const quantized = new Map<string, InferenceParameter>(weights())
  const floats = new Map<string, Parameter>(weights())
  for (const [name, { shape, data }] of weights()) {
    // The rows of the down projection are not whole blocks, so it stays float32.
    if (shape.length !== 2 || shape[1] % 16 !== 0) continue
    const parameter = roundToNearest(shape, data, { bits: 4, blockSize: 16, asymmetric: true })
    quantized.set(name, parameter)
    floats.set(name, { shape, data: dequantize(parameter) })
  }
  const [few, full] = [quantized, floats].map((parameters) => createEvaluator(executor, model, parameters, options))
  for (const measure of measures) {
    const [actual, expected] = [await few.evaluate(batches, measure), await full.evaluate(batches, measure)]
    expect(actual.nll).toBeCloseTo(expected.nll, 1)
    expect(actual.nll).not.toBe(expected.nll)
  }
  await few.dispose()
  await full.dispose()
})
