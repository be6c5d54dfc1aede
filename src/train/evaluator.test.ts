// Evaluation without a trainer: the same likelihood, and that of quantised weights as they are run.
import { afterAll, expect, it } from 'vitest'
import { batch, model, options, weights } from '../../test/train/tiny.ts'
import { dequantize } from '../quant/layout.ts'
import { roundToNearest } from '../quant/round.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import type { InferenceParameter, Parameter } from '../types.ts'
import { createEvaluator, type EvaluationOptions } from './evaluator.ts'
import { createTrainer } from './program.ts'

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
