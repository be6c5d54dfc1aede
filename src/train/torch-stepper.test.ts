// PyTorch as the one that trains: the same losses, gradients and updates as ONNX Runtime. Skipped without PyTorch: test/torch.ts.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { normal } from '../../test/graph/gradient-check.ts'
import { packedBatch } from '../../test/packed-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { hasTorch } from '../../test/torch.ts'
import { randomParameters } from '../checkpoint/load.ts'
import type { InferenceParameter, ModelConfig, Parameter } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { defaultTargetModules, initialLora, initialMagnitudes, loraShapes } from '../models/lora.ts'
import type { Model } from '../models/types.ts'
import { trainedObjectives } from '../objectives/index.ts'
import { policy } from '../objectives/policy.ts'
import { roundToNearest } from '../quant/round.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { startTorch, type TorchProcess } from '../runtime/torch/process.ts'
import { createStepper } from './stepper.ts'
import { createTorchStepper } from './torch-stepper.ts'
import { createTrainer, type TrainerOptions } from './trainer.ts'
import type { StepResult } from './types.ts'

const executor = createExecutor({ threads: 1 })
let started: Promise<TorchProcess> | undefined
afterAll(async () => {
  await (await started?.catch(() => undefined))?.dispose()
  await executor.dispose()
})

/** One process for all tests, one after the other: starting Python and PyTorch takes longer than most of them. */
async function torchProcess(): Promise<TorchProcess> {
  started ??= startTorch()
  return { ...(await started), dispose: async () => {} }
}

const STEPS = 4
const maskTokenId = 39

interface Trained {
  results: StepResult[]
  nll: number
  parameters: Map<string, Parameter>
  moments: Map<string, Parameter>
}

/** A few steps, on both. */
async function onBoth(
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
  change: Partial<TrainerOptions>,
  blockSize = 4,
): Promise<[Trained, Trained]> {
  const options: TrainerOptions = {
    objective: 'diffusion',
    maskTokenId,
    finalBlockSize: 4,
    weighting: 'elbo',
    noise: { copies: 2 },
    seed: 1,
    ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
    ...change,
  }
  const batch = packedBatch(maskTokenId)
  async function train(torch?: TrainerOptions['torch']): Promise<Trained> {
    const trainer = await createTrainer(executor, model, weights, { ...options, torch })
    const results: StepResult[] = []
    for (let step = 0; step < STEPS; step++)
      results.push(
        await trainer.step({ step, batches: [batch, batch], blockSize, learningRate: 1e-2, embeddingNoise: 0 }),
      )
    const { nll } = await trainer.evaluate([batch], {
      blockSize: options.objective === 'diffusion' ? 4 : 'ar',
      seed: 5,
    })
    const parameters = await trainer.parameters()
    const { step, tensors: moments } = await trainer.optimizerState()
    expect(step).toBe(STEPS)
    await trainer.dispose()
    return { results, nll, parameters, moments }
  }
  return [await train(), await train({ process: await torchProcess(), dtype: 'float32' })]
}

function expectAlike([onnx, torch]: [Trained, Trained], within = 2e-4): void {
  for (const [i, { loss, gradNorm, metrics }] of torch.results.entries()) {
    const expected = onnx.results[i]!
    expect(Math.abs(loss / expected.loss - 1)).toBeLessThan(within)
    expect(Math.abs(gradNorm / expected.gradNorm - 1)).toBeLessThan(within)
    expect(Object.keys(metrics).sort()).toEqual(Object.keys(expected.metrics).sort())
  }
  expect(Math.abs(torch.nll / onnx.nll - 1)).toBeLessThan(within)
  for (const [name, { shape, data }] of onnx.parameters) {
    const own = torch.parameters.get(name)!
    expect(own.shape).toEqual(shape)
    // AdamW's first updates are as large where gradients are as small as rounding.
    const differing = data.filter((value, at) => Math.abs(value - own.data[at]!) > 1e-3).length
    expect(differing / data.length).toBeLessThan(0.02)
  }
  expect([...torch.moments.keys()].sort()).toEqual([...onnx.moments.keys()].sort())
}

/** Matrices in 4 bits, as those of a GGUF file: read when they are needed. */
function stored(value: Parameter): InferenceParameter {
  const { shape, data } = value
  if (shape.length !== 2) return value
  const format = { bits: 4, blockSize: 16, asymmetric: false } as const
  return { shape, format, read: async () => roundToNearest(shape, data, format) }
}

describe.skipIf(!hasTorch)('training by PyTorch', () => {
  const { model, weights } = tinyLlama()

  it.each(trainedObjectives)('does what ONNX Runtime does, objective %s', async (objective) => {
    expectAlike(await onBoth(model, weights, { objective }))
  })

  it('does so where a block is the row, and where the next token is predicted', async () => {
    expectAlike(await onBoth(model, weights, {}, 12))
    expectAlike(await onBoth(model, weights, { shift: true, weighting: 'mean' }))
  })

  it('does so with confidence-aware training', async () => {
    expectAlike(await onBoth(model, weights, { confidence: { beta: 2, temperature: 0.5 } }))
  })

  it('does so where blocks are noised in groups', async () => {
    expectAlike(await onBoth(model, weights, { noise: { copies: 2, groupSize: 2 }, weighting: 'mean' }))
  })

  it('does so with wrong tokens, and own predictions', async () => {
    const noise = { copies: 2, groupSize: 2, ownPredictions: 0.5, corruptedTokens: 0.2 }
    expectAlike(await onBoth(model, weights, { noise, weighting: 'mean' }))
  })

  it('does so with rewards', async () => {
    const batch = packedBatch(maskTokenId)
    const step = batch.maskable.map((flag) => flag)
    const rollouts = {
      steps: Int32Array.from(step, (flag, i) => (flag === 1 ? i % 3 : -1)),
      nll: Float32Array.from(step, (_, i) => 3 + 0.3 * Math.sin(i)),
      advantages: Float32Array.from(step, (flag, i) => (flag === 1 ? Math.cos(i) : 0)),
    }
    const aligned = {
      ...batch,
      positions: batch.positions.map((_, i) => i % 12),
      documents: batch.documents.map(() => 0),
    }
    const settings = { maskTokenId, hiddenSize: 32, blockSize: 4, clip: 0.2 }
    const prepared = policy.prepare({ ...aligned, rollouts }, undefined, settings)
    const options = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 }
    const [onnx, torch] = [
      await createStepper(executor, model, weights, options),
      await createTorchStepper(await torchProcess(), model, weights, { ...options, dtype: 'float32', threads: 1 }),
    ]
    const [expected, found] = [await onnx.update([prepared], 1e-3), await torch.update([prepared], 1e-3)]
    expect(found.loss).toBeCloseTo(expected.loss, 4)
    expect(found.gradNorm).toBeCloseTo(expected.gradNorm, 3)
    expect(Object.keys(found.metrics).sort()).toEqual(Object.keys(expected.metrics).sort())
    for (const name of ['ratio', 'clipped']) expect(found.metrics[name]).toBeCloseTo(Number(expected.metrics[name]), 4)
    await onnx.dispose()
    await torch.dispose()
  })

  it.each([
    { dora: false, quantised: false },
    { dora: true, quantised: false },
    { dora: false, quantised: true },
  ])('trains low-rank weights alone: %o', async ({ dora, quantised }) => {
    const base = quantised ? new Map([...weights].map(([name, value]) => [name, stored(value)])) : weights
    const targetModules = defaultTargetModules(model)
    const shapes = loraShapes(model, { rank: 3, targetModules, dora, maskEmbedding: false })
    const parameters = new Map([...initialLora(shapes, undefined, 1), ...(await initialMagnitudes(shapes, weights))])
    for (const [name, { shape, data }] of parameters)
      if (name.endsWith('lora_B.weight')) data.set((normal(3, shape).data as Float32Array).map((x) => 0.2 * x))
    expectAlike(await onBoth(model, base, { objective: 'hybrid', lora: { parameters, scale: 0.7 } }))
  })

  it('trains a mixture of experts, and balances its load', async () => {
    const config: ModelConfig = {
      ...{ model_type: 'llada2_moe', vocab_size: 40, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2 },
      ...{ num_key_value_heads: 1, num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 8 },
      ...{
        num_shared_experts: 1,
        n_group: 2,
        topk_group: 2,
        moe_router_enable_expert_bias: true,
        initializer_range: 0.2,
      },
    }
    const mixture = createModel(config)
    const all = randomParameters(mixture, 3)
    for (const { bias } of mixture.mixtures) all.set(bias!, { shape: [8], data: new Float32Array(8) })
    expectAlike(
      await onBoth(mixture, all, {
        routing: { auxLossCoefficient: 0.01, biasUpdateRate: 1e-3 },
      }),
      1e-3,
    )
  })

  it.each(['llama-tied', 'qwen3', 'llada2-moe'])('follows ONNX Runtime for 50 steps, %s', async (name) => {
    const config = fileURLToPath(new URL(`../../test/golden/${name}/config.json`, import.meta.url))
    const model = createModel(JSON.parse(readFileSync(config, 'utf8')) as ModelConfig)
    const parameters = randomParameters(model, 4)
    for (const { bias, experts } of model.mixtures)
      parameters.set(bias!, { shape: [experts], data: new Float32Array(experts) })
    const batch = packedBatch(maskTokenId)
    async function losses(torch?: TrainerOptions['torch']): Promise<number[]> {
      const trainer = await createTrainer(executor, model, parameters, {
        ...{ objective: 'diffusion', maskTokenId, finalBlockSize: 4, weighting: 'mean', noise: { copies: 2 }, seed: 2 },
        ...{ beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, maxGradNorm: 1, torch },
      })
      const found: number[] = []
      for (let step = 0; step < 50; step++) {
        const at = { step, batches: [batch], blockSize: 4, learningRate: 1e-3, embeddingNoise: 0 }
        found.push((await trainer.step(at)).loss)
      }
      await trainer.dispose()
      return found
    }
    const expected = await losses()
    const own = await losses({ process: await torchProcess(), dtype: 'float32' })
    expect(Math.max(...own.map((loss, step) => Math.abs(loss / expected[step]! - 1)))).toBeLessThan(1e-4)
  })

  it('computes activations again where asked to, and the same', async () => {
    expectAlike(await onBoth(model, weights, { gradientCheckpointing: true }))
  })

  it('starts again from what it saved, and says what is wrong', async () => {
    const process = await startTorch()
    await expect(process.request('load', { id: 'x', program: '/nowhere', constants: '/nowhere' })).rejects.toThrow(
      'not a program',
    )
    await process.dispose()
    await expect(process.request('norm')).rejects.toThrow('PyTorch was ended')
    await expect(startTorch({ python: 'python-that-is-not-there' })).rejects.toThrow('UNMASK_PYTHON')
  })
})
