// Low-rank weights in training: what they compute is what the merged model computes, and they alone are trained.
import { afterAll, describe, expect, it } from 'vitest'
import { directionalDerivative, normal } from '../../test/graph/gradient-check.ts'
import { packedBatch } from '../../test/packed-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { Parameter } from '../core/types.ts'
import { addLowRank, defaultTargetModules, initialLora, loraShapes, projectionOf } from '../models/lora.ts'
import { type TrainedObjective, trainedObjectives } from '../objectives/index.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createTrainer, type TrainerOptions } from './trainer.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const { model, weights } = tinyLlama()
const shapes = loraShapes(model, { rank: 3, targetModules: defaultTargetModules(model), maskEmbedding: false })
const batch = packedBatch(39)
const scale = 0.7
const maskTokenId = 39

/** Low-rank weights whose B is not 0. */
function lora(): Map<string, Parameter> {
  const parameters = initialLora(shapes, undefined, 1)
  let seed = 20
  for (const [name, { shape, data }] of parameters)
    if (name.endsWith('lora_B.weight')) data.set((normal(seed++, shape).data as Float32Array).map((x) => 0.2 * x))
  return parameters
}

function merged(parameters: ReadonlyMap<string, Parameter>): Map<string, Parameter> {
  const all = new Map([...weights].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]))
  for (const [name, a] of parameters) {
    const projection = projectionOf(name)
    if (projection) addLowRank(all.get(projection)!.data, a, parameters.get(name.replace('lora_A', 'lora_B'))!, scale)
  }
  return all
}

const options = (objective: TrainedObjective): TrainerOptions => ({
  objective,
  maskTokenId,
  finalBlockSize: 4,
  weighting: 'elbo',
  noise: {},
  seed: 1,
  ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1e9 },
})

const blockSize = 4
const evaluation = { blockSize, seed: 5 } as const

describe.each(trainedObjectives)('low-rank weights under objective %s', (objective) => {
  it('give the likelihood of the model that they are merged into', async () => {
    const likelihood = async (weights: ReadonlyMap<string, Parameter>, change: Partial<TrainerOptions>) => {
      const trainer = await createTrainer(executor, model, weights, { ...options(objective), ...change })
      const { nll } = await trainer.evaluate([batch], {
        ...evaluation,
        blockSize: objective === 'ar' ? 'ar' : blockSize,
      })
      await trainer.dispose()
      return nll
    }
    const parameters = lora()
    const whole = await likelihood(merged(parameters), {})
    const low = await likelihood(weights, { lora: { parameters, scale } })
    expect(Math.abs(low / whole - 1)).toBeLessThan(1e-5)
    expect(Math.abs((await likelihood(weights, {})) / whole - 1)).toBeGreaterThan(1e-3)
  })

  it('have the gradients of the loss, and change nothing before they are trained', async () => {
    const step = async (parameters: Map<string, Parameter>) => {
      const trainer = await createTrainer(executor, model, weights, {
        ...options(objective),
        lora: { parameters, scale },
      })
      const result = await trainer.step({ step: 0, batches: [batch], blockSize, learningRate: 0, embeddingNoise: 0 })
      await trainer.dispose()
      return result
    }
    const plain = await createTrainer(executor, model, weights, options(objective))
    const before = await plain.step({ step: 0, batches: [batch], blockSize, learningRate: 0, embeddingNoise: 0 })
    await plain.dispose()
    expect((await step(initialLora(shapes, undefined, 1))).loss).toBeCloseTo(before.loss, 5)

    // Along the gradient itself the loss changes by its length.
    const parameters = lora()
    const trainer = await createTrainer(executor, model, weights, {
      ...options(objective),
      ...{ beta1: 0, beta2: 0, epsilon: 1e3 },
      lora: { parameters, scale },
    })
    const input = { step: 0, batches: [batch], blockSize, learningRate: 1, embeddingNoise: 0 }
    const { gradNorm } = await trainer.step(input)
    const moved = await trainer.parameters()
    await trainer.dispose()
    // AdamW with such an epsilon moves by -gradient / epsilon.
    const direction = new Map(
      [...moved].map(([name, { data }]) => [name, data.map((x, i) => (parameters.get(name)!.data[i] - x) * 1e3)]),
    )
    const slope = await directionalDerivative(async (t) => {
      const at = [...parameters].map(([name, { shape, data }]): [string, Parameter] => [
        name,
        { shape, data: data.map((x, i) => x + (t * direction.get(name)![i]) / gradNorm) },
      ])
      return (await step(new Map(at))).loss
    }, 0.02)
    expect(Math.abs(slope / gradNorm - 1)).toBeLessThan(0.1)
  })
})

it('trains and returns the low-rank weights alone', async () => {
  const parameters = initialLora(shapes, undefined, 1)
  const trainer = await createTrainer(executor, model, weights, { ...options('hybrid'), lora: { parameters, scale } })
  const nll = async () => (await trainer.evaluate([batch], { ...evaluation, blockSize: 'ar' })).nll
  const before = await nll()
  for (let step = 0; step < 30; step++)
    await trainer.step({ step, batches: [batch], blockSize, learningRate: 0.03, embeddingNoise: 0 })
  expect(await nll()).toBeLessThan(before / 2)
  expect([...(await trainer.parameters()).keys()]).toEqual([...shapes.keys()])
  await trainer.dispose()
})

it('addLowRank adds scale B A', () => {
  const a = { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) }
  const b = { shape: [2, 2], data: Float32Array.of(1, 0, 2, -1) }
  const w = Float32Array.of(1, 1, 1, 0, 0, 0)
  addLowRank(w, a, b, 2)
  expect([...w]).toEqual([3, 5, 7, -4, -2, 0])
})
