// Confidence-aware training: what it adds to the loss of an objective, its gradients, and several micro-batches.
import { afterAll, describe, expect, it } from 'vitest'
import { directionalDerivative, normal } from '../../test/graph/gradient-check.ts'
import { packedBatch } from '../../test/packed-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { ruleText } from '../../test/train/bigram.ts'
import type { TensorData } from '../core/types.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { objectiveProgram } from '../train/graph.ts'
import { countsOf, createStepper, normalised } from '../train/stepper.ts'
import { createTrainer } from '../train/trainer.ts'
import type { DenoisingSettings } from './denoising.ts'
import { hybrid } from './hybrid.ts'
import type { Variant } from './index.ts'
import { tiles } from './tiles.ts'
import type { MicroBatch } from './types.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const MASK = 39
const { model, weights } = tinyLlama()
const batch = packedBatch(MASK)
const at = { seed: 1, step: 4, row: 0 }
const settings: DenoisingSettings = {
  maskTokenId: MASK,
  weighting: 'mean',
  noise: { copies: 1, noiseRangeLow: 0.5 },
  finalBlockSize: 1,
  hiddenSize: 32,
  blockSize: 1,
  embeddingNoise: 0,
  diffusionWeight: 0.3,
}

const tensors = (parameters: typeof weights) =>
  Object.fromEntries([...parameters].map(([name, value]) => [name, { dtype: 'float32' as const, ...value }]))

type Run = Record<string, TensorData>

async function run(microBatch: MicroBatch<Variant>, gradients: boolean, parameters = weights): Promise<Run> {
  const { objective, rows, length } = microBatch
  const program = objectiveProgram(model, objective, { rows, length }, { gradients })
  const session = await executor.load(program, { optimize: false })
  const feeds = normalised(microBatch, countsOf([microBatch]))
  const fetches = Object.fromEntries(Object.keys(program.outputs).map((name) => [name, null]))
  const results = await session.run({ ...feeds, ...tensors(parameters) }, fetches)
  await session.release()
  return results
}

const value = (results: Run, name: string) => Number(results[name]!.data[0])

/**
 * Two of three labels of masks become what the model predicts there, where it is sure; the others what it expects least. A small
 * change of the weights then leaves right what is right.
 */
async function easier(microBatch: MicroBatch<Variant>): Promise<MicroBatch<Variant>> {
  const shape = (microBatch.feeds.labels as TensorData).shape
  const labels = Array.from((microBatch.feeds.labels as TensorData).data, Number)
  const ranked: { nll: number; token: number }[][] = labels.map(() => [])
  const { objective, rows, length } = microBatch
  const program = objectiveProgram(model, objective, { rows, length }, { gradients: false })
  const session = await executor.load(program, { optimize: false })
  for (let token = 0; token < 40; token++) {
    const tried = { dtype: 'int64' as const, shape, data: BigInt64Array.from(labels, () => BigInt(token)) }
    const { nll } = await session.run({ ...microBatch.feeds, ...tensors(weights), labels: tried }, { nll: null })
    for (const [i, list] of ranked.entries()) list.push({ nll: Number(nll!.data[i]), token })
  }
  await session.release()
  const data = BigInt64Array.from(labels, (label, i) => {
    if (i < (microBatch.counts?.ar_loss ?? 0)) return BigInt(label)
    const list = ranked[i]!.sort((a, b) => a.nll - b.nll)
    const isSure = list[0]!.nll + 0.5 < list[1]!.nll
    return BigInt((isSure && i % 3 > 0 ? list[0]! : list.at(-1)!).token)
  })
  return { ...microBatch, feeds: { ...microBatch.feeds, labels: { dtype: 'int64', shape, data } } }
}

const objectives = {
  tiles: (confidence?: DenoisingSettings['confidence']): MicroBatch<Variant> =>
    tiles.prepare(batch, at, { ...settings, confidence }),
  hybrid: (confidence?: DenoisingSettings['confidence']): MicroBatch<Variant> =>
    hybrid.prepare(batch, at, { ...settings, blockSize: 3, confidence }),
}

describe.each(Object.entries(objectives))('confidence with %s', (name, prepare) => {
  const confidence = { beta: 2, temperature: 0.5 }

  it('adds its weight times the mean entropy at right predictions', async () => {
    const [plain, sure] = [await run(await easier(prepare()), true), await run(await easier(prepare(confidence)), true)]
    expect(value(sure, 'mask_accuracy')).toBeGreaterThan(0.2)
    expect(value(sure, 'mask_accuracy')).toBeLessThan(1)
    expect(value(sure, 'entropy')).toBeGreaterThan(0)
    const weight = name === 'hybrid' ? 0.3 * 2 : 2
    expect(value(sure, 'loss')).toBeCloseTo(value(plain, 'loss') + weight * value(sure, 'entropy'), 4)
  })

  it('has the gradients of its loss', async () => {
    const prepared = await easier(prepare(confidence))
    const results = await run(prepared, true)
    for (const [parameter, { shape, data }] of weights) {
      const gradient = results[`grad.${parameter}`]!.data as Float32Array
      const direction = normal(3, shape).data as Float32Array
      const numeric = await directionalDerivative(async (t) => {
        const moved = new Map(weights).set(parameter, { shape, data: data.map((x, i) => x + t * direction[i]!) })
        return value(await run(prepared, false, moved), 'loss')
      }, 0.002)
      const traced = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0)
      const size = Math.sqrt(gradient.reduce((sum, g, i) => sum + (g * direction[i]!) ** 2, 0))
      expect(Math.abs(traced - numeric), parameter).toBeLessThan(5e-3 * size + 8e-3)
    }
  })
})

it('weighs micro-batches by their masks', async () => {
  const other = { ...batch, maskable: batch.maskable.map((flag, i) => (i % 12 > 8 ? 0 : flag)) }
  const confidence = { beta: 2, temperature: 1 }
  const parts = [
    await easier(tiles.prepare(batch, at, { ...settings, confidence })),
    await easier(tiles.prepare(other, { ...at, row: 2 }, { ...settings, confidence })),
  ]
  const stepper = await createStepper(executor, model, weights, {
    ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1, decays: () => false },
  })
  const { metrics } = await stepper.update(parts, 0)
  await stepper.dispose()
  const counts = parts.map(({ counts }) => counts!.entropy!)
  expect(counts[0]).not.toBe(counts[1])
  const each = await Promise.all(parts.map((part) => run(part, true)))
  const expected = each.reduce((sum, results, i) => sum + counts[i]! * value(results, 'entropy'), 0)
  expect(metrics.entropy).toBeCloseTo(expected / (counts[0]! + counts[1]!), 4)
})

it('makes a trained model surer of what it predicts right', async () => {
  const text = ruleText(1)
  const batches = [await text.next(), await text.next()]
  const trained = async (from: typeof weights, beta: number, steps: number) => {
    const trainer = await createTrainer(executor, model, from, {
      ...{ objective: 'diffusion' as const, maskTokenId: MASK, finalBlockSize: 4, weighting: 'mean' as const, seed: 1 },
      ...{ noise: { noiseRangeLow: 0.3, noiseRangeHigh: 0.8 }, confidence: { beta, temperature: 1 } },
      ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    })
    const last = { entropy: 0, accuracy: 0 }
    for (let step = 0; step < steps; step++) {
      const input = { step, batches: [batches[step % 2]!], blockSize: 4, learningRate: 5e-3, embeddingNoise: 0 }
      const { metrics } = await trainer.step(input)
      if (step < steps - 24) continue
      last.entropy += Number(metrics.entropy) / 24
      last.accuracy += Number(metrics.mask_accuracy) / 24
    }
    const parameters = new Map(
      [...(await trainer.parameters())].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]),
    )
    await trainer.dispose()
    return { ...last, parameters }
  }
  const start = await trained(weights, 1e-9, 120)
  const [plain, sure] = [await trained(start.parameters, 1e-9, 48), await trained(start.parameters, 2, 48)]
  expect(sure.entropy).toBeLessThan(0.6 * plain.entropy)
  expect(sure.accuracy).toBeGreaterThan(plain.accuracy - 0.05)
})
