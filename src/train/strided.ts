// Training of an accelerator: low-rank weights on a frozen autoregressive model, whose weights stay where they are.
import type { Model } from '../models/types.ts'
import { loadInference } from '../nn/inference.ts'
import { maskEmbeddingName } from '../nn/lora.ts'
import { type StridedSettings, strided } from '../objectives/strided.ts'
import type { Executor } from '../runtime/executor.ts'
import type { InferenceParameter, Parameter } from '../types.ts'
import { meanLikelihood } from './evaluator.ts'
import { objectiveProgram } from './graph.ts'
import { update } from './program.ts'
import { createUpdater, type OptimizerOptions } from './stepper.ts'
import type { Trainer } from './types.ts'

export interface StridedTrainerOptions extends OptimizerOptions, StridedSettings {
  seed: number
}

/**
 * Puts an adapter's weights on the executor. `evaluate` is the negative log-likelihood of the data per mask of a stride,
 * whatever the objective: no likelihood of the text, and its bits per byte mean nothing.
 */
export async function createStridedTrainer(
  executor: Executor,
  model: Model,
  base: ReadonlyMap<string, InferenceParameter>,
  initial: ReadonlyMap<string, Parameter>,
  options: StridedTrainerOptions,
): Promise<Trainer> {
  const { size, count, distill, scale, gradientCheckpointing, seed } = options
  const settings = { size, count, distill, scale }
  const adapter = new Map([...initial].map(([name, { shape }]) => [name, shape]))
  const trained = { parameters: adapter, mixtures: [], untrained: new Set<string>() }
  const decays = (name: string) => name !== maskEmbeddingName(model)
  const stepper = await createUpdater(
    executor,
    trained,
    initial,
    { decays, ...options },
    async ({ objective, rows, length }, gradients) => {
      const program = objectiveProgram(
        model,
        objective,
        { rows, length },
        { gradients, gradientCheckpointing, adapter },
      )
      return { program, session: await loadInference(executor, program, model.parameters, base, { optimize: false }) }
    },
  )
  return {
    ...stepper,
    step: (input) => update(stepper, input, seed, (batch, at) => strided.prepare(batch, at, settings)),
    evaluate: (batches, options) =>
      meanLikelihood(batches, options, (batch, draw) => strided.measure(batch, draw, settings), stepper.nll),
  }
}
