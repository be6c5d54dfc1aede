// Training by several processes of PyTorch: what one process does, whoever runs a micro-batch. Skipped without PyTorch: test/torch.ts.
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packedBatch } from '../../test/packed-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { hasTorch } from '../../test/torch.ts'
import { randomParameters } from '../checkpoint/load.ts'
import type { Parameter } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import type { Model } from '../models/types.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { joinTorch, startTorch, type TorchProcess } from '../runtime/torch/process.ts'
import { storedMoments } from './trained-files.ts'
import { createTrainer, type LocalTrainer } from './trainer.ts'
import type { StepResult } from './types.ts'

const executor = createExecutor({ threads: 1 })
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-parallel-'))
})
afterAll(async () => {
  await executor.dispose()
  await rm(folder, { recursive: true, force: true })
})

// Each starts several processes, which take turns on a small machine.
const PATIENCE = 240_000

const maskTokenId = 39
const batch = packedBatch(maskTokenId)

interface Setup {
  model: Model
  weights: ReadonlyMap<string, Parameter>
}

async function trainerOn({ model, weights }: Setup, process: TorchProcess, expertParallel = 1): Promise<LocalTrainer> {
  const mixture = model.mixtures.length > 0 && { routing: { auxLossCoefficient: 0.01, biasUpdateRate: 1e-3 } }
  return createTrainer(executor, model, weights, {
    ...{ objective: 'diffusion', maskTokenId, finalBlockSize: 4, weighting: 'elbo', noise: { copies: 2 }, seed: 1 },
    ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
    ...mixture,
    torch: { process, dtype: 'float32', expertParallel },
  })
}

/** Steps of four micro-batches. */
async function steps(trainer: LocalTrainer, first: number, end: number): Promise<StepResult[]> {
  const results: StepResult[] = []
  for (let step = first; step < end; step++)
    results.push(
      await trainer.step({
        ...{ step, batches: [batch, batch, batch, batch], blockSize: 4, learningRate: 3e-3, embeddingNoise: 0 },
      }),
    )
  return results
}

const difference = (a: number, b: number): number => Math.abs(a / b - 1)

function expectSameCurve(results: readonly StepResult[], expected: readonly StepResult[]): void {
  expect(results.length).toBe(expected.length)
  for (const [i, { loss, gradNorm, metrics }] of results.entries()) {
    expect(difference(loss, expected[i]!.loss)).toBeLessThan(1e-4)
    expect(difference(gradNorm, expected[i]!.gradNorm)).toBeLessThan(1e-3)
    expect(Object.keys(metrics).sort()).toEqual(Object.keys(expected[i]!.metrics).sort())
    expect(metrics.expert_load).toEqual(expected[i]!.metrics.expert_load)
  }
}

describe.skipIf(!hasTorch)('several processes of PyTorch', () => {
  const dense: Setup = tinyLlama()
  let curve: StepResult[]
  let nll: number
  beforeAll(async () => {
    const alone = await trainerOn(dense, await startTorch())
    curve = await steps(alone, 0, 8)
    nll = (await alone.evaluate([batch], { blockSize: 4, seed: 5 })).nll
    await alone.dispose()
  }, PATIENCE)

  it(
    'train as one does; one that is killed ends all, and fewer go on from the checkpoint',
    async () => {
      const four = await startTorch({ processes: 4 })
      const many = await trainerOn(dense, four)
      expectSameCurve(await steps(many, 0, 4), curve.slice(0, 4))
      const updates = await many.save(folder)
      expect(updates).toBe(4)
      // The weights are a model that loads anywhere.
      const { data } = (await many.parameters()).get('model.norm.weight')!
      expect(data.every(Number.isFinite)).toBe(true)
      await expect(storedMoments(folder)).rejects.toThrow('executor: torch')

      const [, victim] = readFileSync(`/proc/${four.pid}/task/${four.pid}/children`, 'utf8').trim().split(' ')
      process.kill(Number(victim), 'SIGKILL')
      await expect(steps(many, 4, 5)).rejects.toThrow(/exitcode: -9/)
      await many.dispose()

      const fewer = await trainerOn(dense, await startTorch({ processes: 2 }))
      await fewer.restore(folder, updates)
      expectSameCurve(await steps(fewer, 4, 8), curve.slice(4))
      expect(difference((await fewer.evaluate([batch], { blockSize: 4, seed: 5 })).nll, nll)).toBeLessThan(1e-4)
      await expect(
        fewer.step({ step: 8, batches: [batch], blockSize: 4, learningRate: 1e-3, embeddingNoise: 0 }),
      ).rejects.toThrow('cannot be shared by 2 processes')
      await fewer.dispose()
    },
    PATIENCE,
  )

  it(
    'divide the experts of a mixture, each of them over processes too',
    async () => {
      const model = createModel({
        ...{ model_type: 'llada2_moe', vocab_size: 40, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2 },
        ...{ num_key_value_heads: 1, num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 8, n_group: 2 },
        ...{ num_shared_experts: 1, topk_group: 2, moe_router_enable_expert_bias: true, initializer_range: 0.2 },
      })
      const weights = randomParameters(model, 3)
      for (const { bias } of model.mixtures) weights.set(bias!, { shape: [8], data: new Float32Array(8) })
      const alone = await trainerOn({ model, weights }, await startTorch())
      const expected = await steps(alone, 0, 4)
      const values = await alone.parameters()
      await alone.dispose()
      const spread = await trainerOn({ model, weights }, await startTorch({ processes: 4 }), 2)
      expectSameCurve(await steps(spread, 0, 4), expected)
      for (const [name, { shape, data }] of await spread.parameters()) {
        const own = values.get(name)!
        expect(own.shape).toEqual(shape)
        const differing = data.filter((value, at) => Math.abs(value - own.data[at]!) > 1e-3).length
        expect(differing / data.length).toBeLessThan(0.02)
      }
      await spread.dispose()
    },
    PATIENCE,
  )

  it(
    'on two machines: the second lends its process',
    async () => {
      const port = 20_000 + (process.pid % 10_000)
      const env = {
        ...process.env,
        ...{ PET_NNODES: '2', PET_NPROC_PER_NODE: '1', PET_MASTER_ADDR: '127.0.0.1', PET_MASTER_PORT: String(port) },
      }
      const second = joinTorch({ env: { ...env, PET_NODE_RANK: '1' } })
      const both = await trainerOn(dense, await startTorch({ processes: 2, env: { ...env, PET_NODE_RANK: '0' } }))
      expectSameCurve(await steps(both, 0, 2), curve.slice(0, 2))
      await both.dispose()
      await second
    },
    PATIENCE,
  )
})
