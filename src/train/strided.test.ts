// The step that trains an accelerator: its gradients, that the base has no part in them, and what a mask is conditioned on.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { directionalDerivative, normal } from '../../test/graph/gradient-check.ts'
import { packedBatch } from '../../test/packed-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { Parameter } from '../core/types.ts'
import { drawStrides } from '../diffusion/strides.ts'
import { initialLora, loraShapes, maskEmbeddingName } from '../models/lora.ts'
import { loadInference } from '../nn/inference.ts'
import { strided } from '../objectives/strided.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { objectiveProgram } from './graph.ts'
import { countsOf, normalised } from './stepper.ts'
import { createStridedTrainer } from './trainer.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const { model, weights } = tinyLlama()
const shapes = loraShapes(model, { rank: 3, targetModules: ['q_proj', 'v_proj', 'o_proj', 'down_proj'] })
const batch = packedBatch(40)
const { rows, length } = batch
const draw = { size: 3, count: 4, seed: 1, step: 0, row: 0 }

/** An adapter whose B is not 0, so that every part has a gradient. */
function adapter(): Map<string, Parameter> {
  const parameters = initialLora(shapes, normal(9, [32]).data as Float32Array, 1)
  let seed = 20
  for (const [name, { shape, data }] of parameters)
    if (name.endsWith('lora_B.weight')) data.set((normal(seed++, shape).data as Float32Array).map((x) => 0.2 * x))
  return parameters
}

const tensors = (parameters: ReadonlyMap<string, Parameter>) =>
  Object.fromEntries([...parameters].map(([name, value]) => [name, { dtype: 'float32' as const, ...value }]))

describe('drawStrides', () => {
  const strides = drawStrides(batch, draw)

  const masksOf = (row: number) => Array.from({ length: 12 }, (_, i) => row * 12 + i)

  it('begins where a stride predicts a maskable token, never twice at one place', () => {
    for (let row = 0; row < rows; row++) {
      const begun = masksOf(row).filter(
        (mask) =>
          strides.weights[mask] > 0 &&
          strides.positions[mask] === 1 + batch.positions[row * length + strides.anchors[mask]],
      )
      const anchors = begun.map((mask) => strides.anchors[mask])
      expect(new Set(anchors).size).toBe(anchors.length)
      for (const anchor of anchors) {
        expect(batch.documents[row * length + anchor]).toBe(batch.documents[row * length + anchor + 2])
        expect(batch.maskable[row * length + anchor + 2]).toBe(1)
      }
    }
  })

  it('predicts the token after each mask, of the same document, and counts them', () => {
    strides.weights.forEach((weight, mask) => {
      if (weight === 0) return
      const anchor = Math.floor(mask / 12) * length + strides.anchors[mask]
      const offset = strides.positions[mask] - batch.positions[anchor] - 1
      const token = anchor + 2 + offset
      expect(offset).toBeLessThan(3)
      expect(strides.labels[mask]).toBe(batch.ids[token])
      expect(batch.documents[token]).toBe(batch.documents[anchor])
      expect(strides.clean[mask]).toBe(token - 1)
    })
    expect(strides.weights.reduce((a, b) => a + b)).toBe(strides.predictions)
  })

  it('fills what a short stride leaves of a group with another', () => {
    for (let first = 0; first < strides.weights.length; first += 3) {
      const group = strides.weights.slice(first, first + 3)
      expect([...group].sort((a, b) => b - a)).toEqual([...group])
    }
    // The first row's texts have strides of 3, 2 and 1 masks: 4 groups hold more than 4 of them.
    const used = masksOf(0).filter((mask) => strides.weights[mask] > 0)
    expect(new Set(used.map((mask) => strides.anchors[mask])).size).toBeGreaterThan(4)
  })
})

describe('stridedProgram', () => {
  for (const distill of [0, 0.4, 1])
    it(`has the gradients of its loss with distill ${distill}`, async () => {
      const settings = { size: 3, count: 4, distill, scale: 2 }
      const prepared = strided.prepare(batch, draw, settings)
      const { objective } = prepared
      const feeds = normalised(prepared, countsOf([prepared]))
      const program = objectiveProgram(model, objective, { rows, length }, { gradients: true, adapter: shapes })
      const session = await loadInference(executor, program, model.parameters, weights, { optimize: false })
      const parameters = adapter()
      const fetches = Object.fromEntries(Object.keys(program.outputs).map((name) => [name, null]))
      const results = await session.run({ ...feeds, ...tensors(parameters) }, fetches)
      for (const [name, { shape, data }] of parameters) {
        const gradient = results[`grad.${name}`].data as Float32Array
        const direction = normal(3, shape).data as Float32Array
        const numeric = await directionalDerivative(async (t) => {
          const moved = new Map(parameters).set(name, { shape, data: data.map((x, i) => x + t * direction[i]) })
          return Number((await session.run({ ...feeds, ...tensors(moved) }, { loss: null })).loss.data[0])
        }, 0.01)
        const traced = gradient.reduce((sum, g, i) => sum + g * direction[i], 0)
        const size = Math.sqrt(gradient.reduce((sum, g, i) => sum + (g * direction[i]) ** 2, 0))
        expect(Math.abs(traced - numeric), name).toBeLessThan(2e-3 * size + 2e-3)
      }
      await session.release()
    })
})

describe('createStridedTrainer', () => {
  const options = {
    ...{ size: 3, count: 4, distill: 0, scale: 2, seed: 1 },
    ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
  }
  let trained: Map<string, Parameter>

  beforeAll(async () => {
    const trainer = await createStridedTrainer(executor, model, weights, adapter(), options)
    const before = await trainer.evaluate([batch], { blockSize: 3, seed: 5 })
    for (let step = 0; step < 30; step++)
      await trainer.step({ step, batches: [batch], blockSize: 3, learningRate: 0.02, embeddingNoise: 0 })
    const after = await trainer.evaluate([batch], { blockSize: 3, seed: 5 })
    expect(after.tokens).toBe(before.tokens)
    expect(after.nll).toBeLessThan(before.nll / 2)
    trained = await trainer.parameters()
    await trainer.dispose()
  })

  it('trains and returns the adapter alone', () => {
    expect([...trained.keys()]).toEqual([...shapes.keys()])
    expect(trained.get(maskEmbeddingName(model))!.shape).toEqual([1, 32])
  })

  it('gives the same bits when it is stopped and restored', async () => {
    const step = (trainer: Awaited<ReturnType<typeof createStridedTrainer>>, at: number) =>
      trainer.step({ step: at, batches: [batch], blockSize: 3, learningRate: 0.02, embeddingNoise: 0 })
    const first = await createStridedTrainer(executor, model, weights, adapter(), options)
    for (let at = 0; at < 5; at++) await step(first, at)
    const parameters = new Map(
      [...(await first.parameters())].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]),
    )
    const optimizer = await first.optimizerState()
    for (let at = 5; at < 30; at++) await step(first, at)
    await first.dispose()
    const second = await createStridedTrainer(executor, model, weights, adapter(), options)
    await second.fill({ parameters, optimizer })
    for (let at = 5; at < 30; at++) await step(second, at)
    expect(await second.parameters()).toEqual(trained)
    await second.dispose()
  })

  it('gives the same bits when activations are computed again', async () => {
    const again = await createStridedTrainer(executor, model, weights, adapter(), {
      ...options,
      gradientCheckpointing: true,
    })
    for (let step = 0; step < 30; step++)
      await again.step({ step, batches: [batch], blockSize: 3, learningRate: 0.02, embeddingNoise: 0 })
    expect(await again.parameters()).toEqual(trained)
    await again.dispose()
  })
})
