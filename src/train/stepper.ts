// Weights, gradients and AdamW moments in resident flat buffers, and the sessions that work on them.
// It runs objectives whose feeds are given; it knows nothing about noise, batches or files.
import { adamw } from '../graph/ops/adamw.ts'
import { add } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { sumSquares } from '../graph/ops/reduce.ts'
import type { Program } from '../graph/program.ts'
import type { Model } from '../models/types.ts'
import type { Variant } from '../objectives/index.ts'
import type { MicroBatch } from '../objectives/types.ts'
import type { Executor, Resident, Session, Source } from '../runtime/executor.ts'
import { type InitialParameter, type Parameter, type TensorData, UserError, valuesOf } from '../types.ts'
import { type FlatLayout, flatLayout } from './flat.ts'
import { objectiveProgram } from './graph.ts'
import { balanceBiases, checkRouting, loadMetrics, type RoutingOptions, untrained } from './routing.ts'
import type { StepResult } from './types.ts'

export interface OptimizerOptions {
  beta1: number
  beta2: number
  epsilon: number
  /** Decoupled weight decay. */
  weightDecay: number
  /** Parameters that decay. Default all, as torch.optim.AdamW has it; see `isMatrix`. */
  decays?: (name: string) => boolean
  /** Gradients are scaled down to this global norm; 0 for no clipping. */
  maxGradNorm: number
  /** Activations within a layer are computed again in the backward pass instead of being kept. Default false. */
  gradientCheckpointing?: boolean
  /** How mixtures of experts are trained. Default: with everything else, without balancing. */
  routing?: RoutingOptions
}

/** Whether weight decay acts on a parameter: on matrices, not on norms, biases and embeddings. */
export function isMatrix(
  { parameters, embeddingName }: Pick<Model, 'parameters' | 'embeddingName'>,
  name: string,
): boolean {
  return name !== embeddingName && (parameters.get(name)?.length ?? 0) > 1
}

export interface Stepper {
  /**
   * Gradients of the loss over the micro-batches of a step, clipped, then one AdamW update. A non-finite loss or norm is
   * returned and changes nothing.
   *
   * @param totals Sums of the micro-batches' counts. Default: over those given; more where others take part in the step.
   */
  update(
    microBatches: readonly MicroBatch<Variant>[],
    learningRate: number,
    totals?: Readonly<Record<string, number>>,
  ): Promise<StepResult>
  /** The negative log-likelihood of each prediction. */
  nll(microBatch: MicroBatch<Variant>): Promise<Float32Array>
  parameters(): Promise<Map<string, Parameter>>
  optimizerState(): Promise<{ step: number; tensors: Map<string, Parameter> }>
  restore(state: {
    parameters: ReadonlyMap<string, InitialParameter>
    optimizer?: { step: number; tensors: ReadonlyMap<string, InitialParameter> }
  }): Promise<void>
  dispose(): Promise<void>
}

const buffers = { parameters: 'parameters', gradients: 'gradients', m: 'exp_avg', v: 'exp_avg_sq', more: 'more' }

const scalar = (value: number): TensorData => ({ dtype: 'float32', shape: [], data: Float32Array.of(value) })

/**
 * Puts the model's weights on the executor. Throws UserError where the model cannot be trained as `options.routing` says.
 */
export async function createStepper(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, InitialParameter>,
  options: OptimizerOptions,
): Promise<Stepper> {
  const { routing = {}, gradientCheckpointing } = options
  checkRouting(model, routing)
  const { parameters, mixtures } = model
  const trainable = { parameters, mixtures, untrained: untrained(model, routing) }
  return createUpdater(executor, trainable, initial, options, async ({ objective, rows, length }, gradients) => {
    const settings = { gradients, gradientCheckpointing, routing }
    const program = objectiveProgram(model, objective, { rows, length }, settings)
    return { program, session: await executor.load(program, { optimize: false }) }
  })
}

/** What is updated: shapes by name, those that are not trained, and the mixtures of experts that report their load. */
export interface Trainable extends Pick<Model, 'parameters' | 'mixtures'> {
  untrained: ReadonlySet<string>
}

interface Loaded {
  program: Program
  session: Session
}

/** Sums of the counts of micro-batches. */
export function countsOf(microBatches: readonly Pick<MicroBatch<unknown>, 'counts'>[]): Record<string, number> {
  const totals: Record<string, number> = {}
  for (const { counts = {} } of microBatches)
    for (const [name, count] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + count
  return totals
}

/** The feeds of a micro-batch, its weights divided by the step's counts. */
export function normalised(
  { feeds, counts }: MicroBatch<unknown>,
  totals: Readonly<Record<string, number>>,
): typeof feeds {
  const divided = { ...feeds }
  for (const [name, total] of Object.entries(totals)) {
    const weights = divided[`${name}_weights`]
    if (!weights || !('data' in weights) || !counts) continue
    divided[`${name}_weights`] = {
      ...weights,
      data: (weights.data as Float32Array).map((weight) => weight / Math.max(1, total)),
    }
  }
  return divided
}

/**
 * Puts parameters on the executor. `open` makes the program and session of a kind of micro-batch, with the parameters among
 * its inputs; its outputs are those of `objectiveProgram`.
 */
export async function createUpdater(
  executor: Executor,
  model: Trainable,
  initial: ReadonlyMap<string, InitialParameter>,
  options: OptimizerOptions,
  open: (microBatch: MicroBatch<Variant>, gradients: boolean) => Promise<Loaded>,
): Promise<Stepper> {
  const { routing = {} } = options
  const untrainedNames = model.untrained
  const trainedShapes = new Map([...model.parameters].filter(([name]) => !untrainedNames.has(name)))
  const layout = flatLayout(trainedShapes, options.decays ?? (() => true))
  let fixed = new Map<string, Parameter>()
  const keepUntrained = async (parameters: ReadonlyMap<string, InitialParameter>) => {
    fixed = new Map()
    for (const [name, parameter] of parameters) if (untrainedNames.has(name)) fixed.set(name, await valuesOf(parameter))
  }
  await keepUntrained(initial)
  const fill = (buffer: string, values: ReadonlyMap<string, InitialParameter>, prefix?: string) =>
    fillFlat(executor, buffer, layout, values, prefix)
  await executor.allocate(buffers.parameters, 'float32', layout.size)
  await fill(buffers.parameters, initial)
  for (const name of [buffers.gradients, buffers.m, buffers.v]) await executor.allocate(name, 'float32', layout.size)
  let updates = 0
  let accumulating = false
  let loaded: (Loaded & { key: string }) | undefined
  const optimizer = await loadOptimizer(executor, layout, options)

  const views = (buffer: string, prefix: string): Record<string, Resident> => {
    const all: Record<string, Resident> = {}
    for (const [name, { offset, shape }] of layout.entries)
      all[`${prefix}${name}`] = { resident: buffer, offset, shape }
    return all
  }
  const { mixtures } = model
  const { biasUpdateRate = 0, auxLossCoefficient = 0 } = routing
  const trained = views(buffers.parameters, '')
  const parameterFeeds = (): Record<string, Source> => {
    const feeds: Record<string, Source> = { ...trained }
    for (const [name, value] of fixed) feeds[name] = { dtype: 'float32', ...value }
    return feeds
  }

  /** One session exists at a time: each keeps the memory of its activations until it is released. */
  async function loadFor(microBatch: MicroBatch<Variant>, gradients: boolean): Promise<Loaded> {
    const { objective, rows, length } = microBatch
    const key = JSON.stringify([objective, rows, length, gradients])
    if (loaded?.key !== key) {
      await release()
      loaded = { key, ...(await open(microBatch, gradients)) }
    }
    return loaded
  }

  async function release(): Promise<void> {
    await loaded?.session.release()
    loaded = undefined
  }

  return {
    async update(microBatches, learningRate, totals = countsOf(microBatches)) {
      const sums: Record<string, Float64Array> = {}
      for (const [i, microBatch] of microBatches.entries()) {
        const { program, session } = await loadFor(microBatch, true)
        const target = i === 0 ? buffers.gradients : buffers.more
        if (i > 0 && !accumulating) {
          await executor.allocate(buffers.more, 'float32', layout.size)
          accumulating = true
        }
        const reported = Object.keys(program.outputs).filter((name) => !name.startsWith('grad.'))
        const feeds = { ...normalised(microBatch, totals), ...parameterFeeds() }
        if (auxLossCoefficient > 0) feeds.step_share = scalar((microBatch.counts?.tokens ?? 1) / (totals.tokens ?? 1))
        const outputs = await session.run(feeds, {
          ...views(target, 'grad.'),
          ...Object.fromEntries(reported.map((name) => [name, null])),
        })
        if (i > 0) await optimizer.accumulate()
        for (const name of reported) {
          const values = Float64Array.from(outputs[name]!.data, Number)
          sums[name] = sums[name]?.map((value, at) => value + values[at]!) ?? values
        }
      }
      const {
        loss: [loss],
        expert_load: flatLoad,
        ...others
      } = sums as { loss: Float64Array } & typeof sums
      const load =
        flatLoad && mixtures.map(({ experts }, at) => [...flatLoad.subarray(at * experts, (at + 1) * experts)])
      const metrics: StepResult['metrics'] = {}
      if (totals.loss_positions !== undefined) metrics.loss_positions = totals.loss_positions
      // A part of the loss that no token belongs to has no value.
      for (const [name, [value]] of Object.entries(others)) if (totals[name] !== 0) metrics[name] = value!
      if (load) Object.assign(metrics, loadMetrics(load))
      const gradNorm = await optimizer.norm()
      const result = { loss: loss!, gradNorm, metrics }
      if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) return result
      updates++
      const clip = options.maxGradNorm > 0 ? Math.min(1, options.maxGradNorm / (gradNorm + 1e-6)) : 1
      await optimizer.update(clip, learningRate, updates)
      if (biasUpdateRate > 0 && load) balanceBiases(mixtures, load, biasUpdateRate, fixed)
      return result
    },

    async nll(microBatch) {
      const { session } = await loadFor(microBatch, false)
      const outputs = await session.run({ ...microBatch.feeds, ...parameterFeeds() }, { nll: null })
      return outputs.nll!.data as Float32Array
    },

    async parameters() {
      const values = unflatten(layout, (await executor.read(buffers.parameters)) as Float32Array)
      return new Map(
        [...model.parameters.keys()].map((name) => [name, (values.get(name) ?? fixed.get(name)) as Parameter]),
      )
    },

    async optimizerState() {
      const tensors = new Map<string, Parameter>()
      for (const moment of [buffers.m, buffers.v])
        for (const [name, value] of unflatten(layout, (await executor.read(moment)) as Float32Array))
          tensors.set(`${moment}.${name}`, value)
      return { step: updates, tensors }
    },

    async restore({ parameters, optimizer: state }) {
      await fill(buffers.parameters, parameters)
      await keepUntrained(parameters)
      updates = state?.step ?? 0
      for (const moment of [buffers.m, buffers.v]) {
        await executor.allocate(moment, 'float32', layout.size)
        if (state) await fill(moment, state.tensors, `${moment}.`)
      }
    },

    async dispose() {
      await release()
      await optimizer.release()
      for (const name of Object.values(buffers)) await executor.free(name)
    },
  }
}

/** Puts tensors where they belong in a flat buffer of the executor, one after the other, so that no second copy of all exists. */
async function fillFlat(
  executor: Executor,
  buffer: string,
  layout: FlatLayout,
  values: ReadonlyMap<string, InitialParameter>,
  prefix = '',
): Promise<void> {
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

function unflatten(layout: FlatLayout, flat: Float32Array): Map<string, Parameter> {
  const values = new Map<string, Parameter>()
  for (const [name, { offset, size, shape }] of layout.entries)
    values.set(name, { shape, data: flat.subarray(offset, offset + size) })
  return values
}

/** The sessions that work on whole flat buffers: sum, norm and update. */
async function loadOptimizer(executor: Executor, layout: FlatLayout, options: OptimizerOptions) {
  const { chunk, chunks, decayed } = layout
  const flat = (name: string) => input(name, 'float32', ['chunks', chunk])
  const coefficient = (name: string) => input(name, 'float32', [])
  const [p, g, m, v] = ['p', 'g', 'm', 'v'].map(flat)
  const [nextP, nextM, nextV] = adamw(
    p,
    g,
    m,
    v,
    {
      gradientScale: coefficient('gradient_scale'),
      decay: coefficient('decay'),
      stepSize: coefficient('step_size'),
      epsilon: coefficient('epsilon'),
    },
    options,
  )
  const load = (name: string, outputs: Program['outputs']) => executor.load({ name, outputs }, { optimize: false })
  const updating = await load('adamw', { next_p: nextP, next_m: nextM, next_v: nextV })
  const summing = await load('accumulate', { sum: add(flat('a'), flat('b')) })
  const squaring = await load('norm', { squares: sumSquares(flat('g'), [1]) })
  const view = (resident: string, first = 0, end = chunks): Resident => ({
    resident,
    offset: first * chunk,
    shape: [end - first, chunk],
  })
  return {
    async accumulate() {
      const into = view(buffers.gradients)
      await summing.run({ a: into, b: view(buffers.more) }, { sum: into })
    },
    async norm(): Promise<number> {
      const { squares } = await squaring.run({ g: view(buffers.gradients) }, { squares: null })
      let total = 0
      for (const value of squares!.data as Float32Array) total += value
      return Math.sqrt(total)
    },
    async update(gradientScale: number, learningRate: number, updates: number) {
      const correction1 = 1 - options.beta1 ** updates
      const correction2 = Math.sqrt(1 - options.beta2 ** updates)
      for (const [first, end, weightDecay] of [
        [0, decayed, options.weightDecay],
        [decayed, chunks, 0],
      ] as const) {
        if (first === end) continue
        const [p, g, m, v] = [buffers.parameters, buffers.gradients, buffers.m, buffers.v].map((name) =>
          view(name, first, end),
        ) as [Resident, Resident, Resident, Resident]
        const coefficients = {
          gradient_scale: scalar(gradientScale),
          decay: scalar(1 - learningRate * weightDecay),
          step_size: scalar((learningRate * correction2) / correction1),
          epsilon: scalar(options.epsilon * correction2),
        }
        await updating.run({ p, g, m, v, ...coefficients }, { next_p: p, next_m: m, next_v: v })
      }
    },
    async release() {
      for (const session of [updating, summing, squaring]) await session.release()
    },
  }
}
