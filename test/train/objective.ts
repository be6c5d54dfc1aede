// Runs the program of an objective, and checks its gradients against finite differences. Used by tests only.
import { expect } from 'vitest'
import type { Parameter, TensorData } from '../../src/core/types.ts'
import type { Model } from '../../src/models/types.ts'
import type { Variant } from '../../src/objectives/index.ts'
import type { MicroBatch } from '../../src/objectives/types.ts'
import type { Executor } from '../../src/runtime/executor.ts'
import { objectiveProgram } from '../../src/train/graph.ts'
import { countsOf, normalised } from '../../src/train/stepper.ts'
import { directionalDerivative, normal } from '../graph/gradient-check.ts'

type Weights = ReadonlyMap<string, Parameter>

/** All outputs of the objective's program for a micro-batch that is a step of its own. */
export async function runObjective(
  { executor, model }: { executor: Executor; model: Model },
  microBatch: MicroBatch<Variant>,
  {
    gradients,
    gradientCheckpointing,
    weights,
  }: { gradients: boolean; gradientCheckpointing?: boolean; weights: Weights },
): Promise<Record<string, TensorData>> {
  const { objective, rows, length } = microBatch
  const program = objectiveProgram(model, objective, { rows, length }, { gradients, gradientCheckpointing })
  const session = await executor.load(program, { optimize: false })
  const parameters = Object.fromEntries(
    [...weights].map(([name, value]) => [name, { dtype: 'float32' as const, ...value }]),
  )
  const fetches = Object.fromEntries(Object.keys(program.outputs).map((name) => [name, null]))
  const results = await session.run({ ...normalised(microBatch, countsOf([microBatch])), ...parameters }, fetches)
  await session.release()
  return results
}

/** Expects `grad.<parameter>` of all parameters to be the slopes of the loss along one direction each. */
export async function expectGradients(
  run: (gradients: boolean, weights?: Weights) => Promise<Record<string, TensorData>>,
  weights: Weights,
  step: number,
): Promise<void> {
  const results = await run(true)
  for (const [name, { shape, data }] of weights) {
    const gradient = results[`grad.${name}`]!.data as Float32Array
    const direction = normal(3, shape).data as Float32Array
    const numeric = await directionalDerivative(async (t) => {
      const moved = new Map(weights).set(name, { shape, data: data.map((x, i) => x + t * direction[i]!) })
      return Number((await run(false, moved)).loss!.data[0])
    }, step)
    const traced = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0)
    const size = Math.sqrt(gradient.reduce((sum, g, i) => sum + (g * direction[i]!) ** 2, 0))
    expect(Math.abs(traced - numeric), name).toBeLessThan(2e-3 * size + 4e-3)
  }
}
