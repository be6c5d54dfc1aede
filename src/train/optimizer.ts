// AdamW over all trained parameters: they, their gradients and moments lie in resident flat buffers of an executor.
// Knows nothing about models, losses or files.

import { type InitialParameter, type Parameter, type TensorData, UserError, valuesOf } from '../core/types.ts'
import { adamw } from '../graph/ops/adamw.ts'
import { add } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { sumSquares } from '../graph/ops/reduce.ts'
import type { Program } from '../graph/program.ts'
import type { Executor, Resident } from '../runtime/executor.ts'
import { flatLayout } from './flat.ts'

export interface OptimizerOptions {
  beta1: number
  beta2: number
  epsilon: number
  /** Decoupled weight decay. */
  weightDecay: number
  /** Parameters that decay. Default all, as torch.optim.AdamW has it. */
  decays?: (name: string) => boolean
  /** Gradients are scaled down to this global norm; 0 for no clipping. */
  maxGradNorm: number
}

export interface Optimizer {
  /** The parameters as inputs of a program. */
  readonly parameters: Readonly<Record<string, Resident>>
  /** Where the program of a micro-batch puts its gradients, `grad.<parameter>`. */
  gradients(microBatch: number): Promise<Record<string, Resident>>
  /** Adds the gradients of a micro-batch to those of the first. */
  accumulate(microBatch: number): Promise<void>
  /** Global norm of the gradients. */
  norm(): Promise<number>
  /** One update with gradients of that norm. */
  update(gradNorm: number, learningRate: number): Promise<void>
  values(): Promise<Map<string, Parameter>>
  /** Moments, named `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`, and updates done. */
  state(): Promise<OptimizerState<Parameter>>
  /** Replaces parameters, and moments: by 0 without a state. */
  fill(parameters: ReadonlyMap<string, InitialParameter>, state?: OptimizerState<InitialParameter>): Promise<void>
  release(): Promise<void>
}

export interface OptimizerState<P> {
  step: number
  tensors: Map<string, P>
}

const buffers = { parameters: 'parameters', gradients: 'gradients', m: 'exp_avg', v: 'exp_avg_sq', more: 'more' }

export const scalar = (value: number): TensorData => ({ dtype: 'float32', shape: [], data: Float32Array.of(value) })

/** Allocates the buffers for parameters of these shapes. Throws UserError where an initial one is missing or of another shape. */
export async function createOptimizer(
  executor: Executor,
  shapes: ReadonlyMap<string, readonly number[]>,
  initial: ReadonlyMap<string, InitialParameter>,
  options: OptimizerOptions,
): Promise<Optimizer> {
  const layout = flatLayout(shapes, options.decays ?? (() => true))
  const { chunk, chunks, decayed } = layout
  const allocate = (name: string) => executor.allocate(name, 'float32', layout.size)
  for (const name of [buffers.parameters, buffers.gradients, buffers.m, buffers.v]) await allocate(name)
  await fillBuffer(buffers.parameters, initial)
  let updates = 0
  let accumulating = false

  /** Puts tensors where they belong, one after the other, so that no second copy of all exists. */
  async function fillBuffer(buffer: string, values: ReadonlyMap<string, InitialParameter>, prefix = ''): Promise<void> {
    const found: [offset: number, value: InitialParameter][] = []
    for (const [name, { offset, size, shape }] of layout.entries) {
      const value = values.get(prefix + name)
      if (!value) throw new UserError(`tensor ${prefix}${name} is missing`)
      if (value.shape.reduce((product, length) => product * length, 1) !== size)
        throw new UserError(`tensor ${prefix}${name} has shape [${value.shape}], the model needs [${shape}]`)
      found.push([offset, value])
    }
    for (const [offset, value] of found) {
      const { data } = await valuesOf(value)
      // What was read for this is given away, what the caller has is copied.
      await executor.write(buffer, 'read' in value ? data : data.slice(), offset)
    }
  }

  async function readBuffer(buffer: string, prefix = ''): Promise<Map<string, Parameter>> {
    const flat = (await executor.read(buffer)) as Float32Array
    const values = new Map<string, Parameter>()
    for (const [name, { offset, size, shape }] of layout.entries)
      values.set(prefix + name, { shape, data: flat.subarray(offset, offset + size) })
    return values
  }

  function named(buffer: string, prefix = ''): Record<string, Resident> {
    const all: Record<string, Resident> = {}
    for (const [name, { offset, shape }] of layout.entries) all[prefix + name] = { resident: buffer, offset, shape }
    return all
  }

  const { updating, summing, squaring } = await loadSessions(executor, chunk, options)
  const view = (resident: string, first = 0, end = chunks): Resident => ({
    resident,
    offset: first * chunk,
    shape: [end - first, chunk],
  })
  return {
    parameters: named(buffers.parameters),

    async gradients(microBatch) {
      if (microBatch === 0) return named(buffers.gradients, 'grad.')
      if (!accumulating) await allocate(buffers.more)
      accumulating = true
      return named(buffers.more, 'grad.')
    },

    async accumulate(microBatch) {
      const into = view(buffers.gradients)
      if (microBatch > 0) await summing.run({ a: into, b: view(buffers.more) }, { sum: into })
    },

    async norm() {
      const { squares } = await squaring.run({ g: view(buffers.gradients) }, { squares: null })
      let total = 0
      for (const value of squares.data as Float32Array) total += value
      return Math.sqrt(total)
    },

    async update(gradNorm, learningRate) {
      updates++
      const { beta1, beta2, epsilon, maxGradNorm, weightDecay } = options
      const clip = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (gradNorm + 1e-6)) : 1
      const correction = Math.sqrt(1 - beta2 ** updates)
      for (const [first, end, decay] of [
        [0, decayed, weightDecay],
        [decayed, chunks, 0],
      ] as const) {
        if (first === end) continue
        const { parameters, gradients, m, v } = buffers
        const [nextP, g, nextM, nextV] = [parameters, gradients, m, v].map((name) => view(name, first, end))
        const coefficients = {
          gradient_scale: scalar(clip),
          decay: scalar(1 - learningRate * decay),
          step_size: scalar((learningRate * correction) / (1 - beta1 ** updates)),
          epsilon: scalar(epsilon * correction),
        }
        const feeds = { p: nextP, g, m: nextM, v: nextV, ...coefficients }
        await updating.run(feeds, { next_p: nextP, next_m: nextM, next_v: nextV })
      }
    },

    values: () => readBuffer(buffers.parameters),

    async state() {
      const [m, v] = [await readBuffer(buffers.m, `${buffers.m}.`), await readBuffer(buffers.v, `${buffers.v}.`)]
      return { step: updates, tensors: new Map([...m, ...v]) }
    },

    async fill(parameters, state) {
      await fillBuffer(buffers.parameters, parameters)
      updates = state?.step ?? 0
      for (const moment of [buffers.m, buffers.v]) {
        await allocate(moment)
        if (state) await fillBuffer(moment, state.tensors, `${moment}.`)
      }
    },

    async release() {
      for (const session of [updating, summing, squaring]) await session.release()
      for (const name of Object.values(buffers)) await executor.free(name)
    },
  }
}

/** The sessions that work on flat buffers [chunks, chunk]: update, sum and squares of chunks. */
async function loadSessions(executor: Executor, chunk: number, options: OptimizerOptions) {
  const flat = (name: string) => input(name, 'float32', ['chunks', chunk])
  const coefficient = (name: string) => input(name, 'float32', [])
  const coefficients = {
    gradientScale: coefficient('gradient_scale'),
    decay: coefficient('decay'),
    stepSize: coefficient('step_size'),
    epsilon: coefficient('epsilon'),
  }
  const [nextP, nextM, nextV] = adamw(flat('p'), flat('g'), flat('m'), flat('v'), coefficients, options)
  const load = (name: string, outputs: Program['outputs']) => executor.load({ name, outputs }, { optimize: false })
  return {
    updating: await load('adamw', { next_p: nextP, next_m: nextM, next_v: nextV }),
    summing: await load('accumulate', { sum: add(flat('a'), flat('b')) }),
    squaring: await load('norm', { squares: sumSquares(flat('g'), [1]) }),
  }
}
