// What training a model on many GPUs takes: memory, time, energy, CO2 and money of each stage. Formulas: docs/cluster.md.
import { SettingError } from '../core/types.ts'
import type { Stage } from '../diffusion/schedule.ts'
import { type Model, parameterCounts } from '../models/index.ts'
import type { Gpu } from './gpus.ts'
import { keysPerPosition, type Memory, memoryOf, positionsPerRow, type Setup } from './memory.ts'

export interface PlanOptions extends Omit<Setup, 'processes' | 'blockSize'> {
  gpu: Gpu
  gpus: number
  schedule: readonly Stage[]
  /** Share of the GPU's floating-point operations that do the model's work. An assumption until it is measured. */
  mfu: number
  /** Per GPU and hour, in any currency. */
  price: number
  /** Power of the data centre over power of the GPUs: cooling, processors, network. */
  overhead: number
  /** Kilograms of CO2 per kWh. */
  carbon: number
}

export interface StagePlan {
  blockSize: number
  tokens: number
  tokensPerSecond: number
  hours: number
  /** kWh. */
  energy: number
  /** Kilograms. */
  co2: number
  money: number
  memory: Memory
}

export interface Plan {
  parameters: { total: number; active: number }
  stages: StagePlan[]
  hours: number
  energy: number
  co2: number
  money: number
  /** Bytes per GPU of the stage that needs most, and those that a GPU has. */
  memory: number
  available: number
  fits: boolean
}

/** What PyTorch, NCCL and fragments take of a GPU, which no formula here counts. */
const RESERVED = 0.1

/**
 * Floating-point operations of a clean token: 6 per parameter that a position uses and multiplies (Kaplan et al., 2001.08361),
 * and 12 per layer, head, value of a head and key (2 products, 2 operations, 3 passes), for each position that is computed. The
 * head is multiplied at half of the noised positions. Activations that are computed again are no work of the model.
 */
export function flopsPerToken(model: Model, setup: Setup): number {
  const { vocabSize, hiddenSize, layers, heads, headDim } = model.dimensions
  const { active } = parameterCounts(model)
  const head = vocabSize * hiddenSize
  const isTied = ![...model.parameters.keys()].some((name) => /^lm_head\.|ff_out\.weight$/.test(name))
  const inLayers = active - head * (isTied ? 1 : 2)
  const positions = positionsPerRow(setup) / setup.length
  const attention = 12 * layers * heads * headDim * keysPerPosition(setup)
  return positions * (6 * inLayers + attention) + (6 * head * setup.copies) / 2
}

function checkExpertParallel({ mixtures }: Model, { expertParallel, gpus }: PlanOptions): void {
  if (expertParallel === 1) return
  const experts = mixtures[0]?.experts
  if (experts === undefined) throw new SettingError('expertParallel', 'this model has no experts: leave it out')
  if (gpus % expertParallel !== 0 || experts % expertParallel !== 0)
    throw new SettingError(
      'expertParallel',
      `expected a divisor of ${gpus} GPUs and of ${experts} experts, not ${expertParallel}`,
    )
}

/** Throws SettingError where the processes cannot be divided so. */
export function planTraining(model: Model, options: PlanOptions): Plan {
  const { gpu, gpus, schedule, mfu, price, overhead, carbon } = options
  checkExpertParallel(model, options)
  const stages = schedule.map(({ blockSize, tokens }): StagePlan => {
    const setup = { ...options, processes: gpus, blockSize }
    const tokensPerSecond = (gpus * gpu.flops * mfu) / flopsPerToken(model, setup)
    const hours = tokens / tokensPerSecond / 3600
    const energy = (hours * gpus * gpu.watts * overhead) / 1000
    return {
      ...{ blockSize, tokens, tokensPerSecond, hours, energy },
      co2: energy * carbon,
      money: hours * gpus * price,
      memory: memoryOf(model, setup),
    }
  })
  const total = (of: (stage: StagePlan) => number) => stages.reduce((sum, stage) => sum + of(stage), 0)
  const memory = Math.max(...stages.map((stage) => stage.memory.total))
  const available = gpu.memory * (1 - RESERVED)
  return {
    parameters: parameterCounts(model),
    stages,
    hours: total(({ hours }) => hours),
    energy: total(({ energy }) => energy),
    co2: total(({ co2 }) => co2),
    money: total(({ money }) => money),
    memory,
    available,
    fits: memory <= available,
  }
}
