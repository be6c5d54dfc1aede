// What a plan says beside what PyTorch takes: small runs, and the largest shape on the meta device.
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { hasTorch, python } from '../../test/torch.ts'
import { randomParameters } from '../checkpoint/load.ts'
import { writeSafetensors } from '../checkpoint/safetensors-write.ts'
import type { ModelConfig, TensorData } from '../core/types.ts'
import { wsdSchedule } from '../diffusion/schedule.ts'
import { serializeProgram } from '../graph/serialize.ts'
import { createModel } from '../models/index.ts'
import { objectiveAt } from '../objectives/index.ts'
import { startTorch, type TorchProcess } from '../runtime/torch/process.ts'
import { loadProgram } from '../runtime/torch/run.ts'
import { lossProgram } from '../train/graph.ts'
import { countsOf, normalised } from '../train/stepper.ts'
import { parseGpus } from './gpus.ts'
import { memoryOf, parametersOfProcess, type Setup } from './memory.ts'
import { planTraining } from './plan.ts'
import { knownShapes } from './shapes.ts'

const mini = createModel(knownShapes['llada2-mini']!)
const flash = createModel(knownShapes['llada2-flash']!)

const assumed = { mfu: 0.3, price: 2, overhead: 1.5, carbon: 0.5 }
const setup = { length: 4096, copies: 1, rows: 1, dtype: 'bfloat16', recompute: true, expertParallel: 8 } as const
const schedule = wsdSchedule({ length: 4096, finalBlockSize: 32, totalTokens: 1e11 })

describe('a plan', () => {
  it('has the parameters that LLaDA2.0 is published with', () => {
    const plan = planTraining(flash, { ...setup, ...assumed, schedule, gpu: parseGpus('H100').gpu, gpus: 64 })
    expect(plan.parameters.total / 1e9).toBeCloseTo(102.9, 1)
    expect(plan.parameters.active / 1e9).toBeCloseTo(6.15, 1)
    // 4 + 4 + 8 bytes each, divided by 64.
    const { weights, gradients, moments } = plan.stages[0]!.memory
    expect((weights + gradients + moments) / ((16 * plan.parameters.total) / 64)).toBeCloseTo(1, 3)
    expect(plan.fits).toBe(true)
    expect(planTraining(flash, { ...setup, ...assumed, schedule, gpu: parseGpus('H100').gpu, gpus: 8 }).fits).toBe(
      false,
    )
  })

  it('follows from operations, hours and prices, computed by hand', () => {
    const { gpu, count } = parseGpus('H100:64')
    const [stage] = planTraining(mini, {
      ...{ ...setup, ...assumed, gpu, gpus: count },
      schedule: [{ blockSize: 4096, tokens: 1e9 }],
    }).stages
    // 789M active parameters in layers and half of the head's 2048 x 157184; 20 layers of 16 heads of 128 that meet 4096 keys.
    const flops = 6 * (789e6 + (2048 * 157_184) / 2) + 12 * 20 * 16 * 128 * 4096
    const perSecond = (64 * 989e12 * 0.3) / flops
    expect(stage!.tokensPerSecond / perSecond).toBeCloseTo(1, 2)
    expect(stage!.money).toBeCloseTo(stage!.hours * 64 * 2, 9)
    expect(stage!.co2).toBeCloseTo(stage!.hours * 64 * 0.7 * 1.5 * 0.5, 9)
    expect(stage!.hours).toBeCloseTo(1e9 / stage!.tokensPerSecond / 3600, 9)
    // Blocks need a clean copy beside the noised one.
    const [blocks] = planTraining(mini, {
      ...{ ...setup, ...assumed, gpu, gpus: count },
      schedule: [{ blockSize: 32, tokens: 1e9 }],
    }).stages
    expect(blocks!.hours / stage!.hours).toBeGreaterThan(1.3)
  })

  it('says what is wrong', () => {
    expect(() => parseGpus('H100:0')).toThrow('known: A100')
    expect(() => parseGpus('constructor:2')).toThrow('known: A100')
    const plan = { ...setup, ...assumed, schedule, gpu: parseGpus('H100').gpu }
    expect(() => planTraining(flash, { ...plan, gpus: 12 })).toThrow(
      'expected a divisor of 12 GPUs and of 256 experts, not 8',
    )
    expect(() => planTraining(flash, { ...plan, gpus: 9, expertParallel: 9 })).toThrow('of 256 experts, not 9')
  })
})

const dense = { model_type: 'llama', vocab_size: 96, hidden_size: 64, num_hidden_layers: 3, num_attention_heads: 4 }
const sizes = { num_key_value_heads: 2, head_dim: 16, intermediate_size: 128 }
const experts = { num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 64, n_group: 2, topk_group: 1 }
const usual: Setup = {
  ...{
    processes: 1,
    expertParallel: 1,
    length: 256,
    blockSize: 8,
    copies: 1,
    rows: 1,
    dtype: 'float32',
    recompute: false,
  },
}

const cases: [string, ModelConfig, Setup][] = [
  ['a Llama', { ...dense, ...sizes, tie_word_embeddings: true }, usual],
  ['in bfloat16', { ...dense, ...sizes, hidden_size: 96 }, { ...usual, dtype: 'bfloat16' }],
  ['with recomputing', { ...dense, ...sizes, num_hidden_layers: 4 }, { ...usual, recompute: true }],
  ['two rows, two copies, larger blocks', { ...dense, ...sizes }, { ...usual, rows: 2, copies: 2, blockSize: 16 }],
  ['a Qwen3', { ...dense, ...sizes, model_type: 'qwen3', num_key_value_heads: 4 }, usual],
  ['a mixture', { ...dense, ...sizes, ...experts, model_type: 'llada2_moe', num_shared_experts: 1 }, usual],
]

describe.skipIf(!hasTorch)('beside PyTorch', () => {
  it('memory of small runs is within 10 % of what they take', async () => {
    const process = await startTorch()
    const errors: Record<string, number> = {}
    for (const [name, config, setup] of cases) {
      const model = createModel(config)
      const own = memoryOf(model, setup)
      const { peak, weights, moments, gradients } = await measured(process, model, setup)
      expect([own.weights, own.gradients, own.moments], name).toEqual([weights, gradients, moments])
      const taken = own.total - own.weights - own.gradients - own.moments
      errors[name] = Math.abs(taken / peak - 1)
    }
    await process.dispose()
    expect(Object.entries(errors).filter(([, error]) => error > 0.1)).toEqual([])
  }, 120_000)

  it('LLaDA2-flash on 64 processes: everything is divided, as the plan says', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-meta-'))
    try {
      const trained = [...flash.parameters].filter(([name]) => !flash.buffers.has(name))
      await writeFile(join(folder, 'shapes.json'), JSON.stringify(Object.fromEntries(trained)))
      const settings = { maskTokenId: 1, weighting: 'mean', noise: {}, hiddenSize: 4096, embeddingNoise: 0 } as const
      const { objective } = objectiveAt('diffusion', { ...settings, blockSize: 32, finalBlockSize: 32 }, 64).prepare(
        plainBatch(1, 64),
        { seed: 1, step: 0, row: 0 },
        { ...settings, blockSize: 32, finalBlockSize: 32 },
      )
      const { json, constants } = serializeProgram(lossProgram(flash, objective, { rows: 1, length: 64 }, {}))
      await writeFile(join(folder, 'program.json'), json)
      await writeFile(join(folder, 'constants'), constants)
      const cwd = fileURLToPath(new URL('../../python', import.meta.url))
      const { stdout } = await promisify(execFile)(python, ['-m', 'tests.meta', folder, '64', '8', '0'], { cwd })
      const found = JSON.parse(stdout) as Record<string, unknown>
      // Of 31 layers the experts' three matrices are one tensor each.
      const count = trained.length - 31 * 256 * 3 + 31 * 3
      const bytes = 4 * parametersOfProcess(flash, { processes: 64, expertParallel: 8 })
      // The root, the layers, and the experts of those that have some.
      expect(found).toMatchObject({
        tensors: count,
        sharded: count,
        meta: true,
        bytes,
        read: bytes,
        units: 1 + 32 + 31,
      })
      expect(found.layers).toEqual(Array.from({ length: 32 }, (_, layer) => `model.layers.${layer}`))
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }, 120_000)
})

/** Rows of one document each. */
function plainBatch(rows: number, length: number) {
  const tokens = rows * length
  return {
    ...{ rows, length, tokens, bytes: tokens, documentIds: ['a'] },
    ids: Int32Array.from({ length: tokens }, (_, i) => (i * 7) % 90),
    documents: new Int32Array(tokens),
    positions: Int32Array.from({ length: tokens }, (_, i) => i % length),
    maskable: new Uint8Array(tokens).fill(1),
    padding: new Uint8Array(tokens),
  }
}

interface Measured {
  peak: number
  weights: number
  moments: number
  gradients: number
}

/** The bytes that a micro-batch takes. */
async function measured(
  process: TorchProcess,
  model: ReturnType<typeof createModel>,
  { rows, length, blockSize, copies, dtype, recompute }: Setup,
): Promise<Measured> {
  const weights = randomParameters(model, 1)
  const fixed = new Map<string, TensorData>()
  for (const name of model.buffers) {
    fixed.set(name, { dtype: 'float32', ...weights.get(name)! })
    weights.delete(name)
  }
  const file = process.file()
  await writeSafetensors(file, weights)
  const options = { dtype, threads: 1, expert_parallel: 1, recompute, decays: [] }
  await process.request('start', { options, trained: file, frozen: null })
  const settings = {
    ...({ maskTokenId: 95, weighting: 'elbo', noise: { copies }, hiddenSize: 1, embeddingNoise: 0 } as const),
    ...{ blockSize, finalBlockSize: blockSize },
  }
  const at = { seed: 1, step: 0, row: 0 }
  const microBatch = objectiveAt('diffusion', settings, length).prepare(plainBatch(rows, length), at, settings)
  await loadProgram(process, 'step', lossProgram(model, microBatch.objective, { rows, length }, {}))
  const feeds = Object.entries(normalised(microBatch, countsOf([microBatch]))) as [string, TensorData][]
  return process.request('measure', { id: 'step', feeds: await process.put(new Map([...fixed, ...feeds])) })
}
