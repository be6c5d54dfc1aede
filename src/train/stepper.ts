// Weights, gradients and AdamW moments in resident flat buffers, and the sessions that work on them.
// It runs objectives whose feeds are given; it knows nothing about noise, batches or files.
import { adamw } from '../graph/ops/adamw.ts'
import { add } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { sumSquares } from '../graph/ops/reduce.ts'
import { exportOnnx } from '../graph/program.ts'
import type { Model } from '../models/types.ts'
import type { Executor, Resident, Session, Source } from '../runtime/executor.ts'
import { type InitialParameter, type Parameter, type TensorData, UserError, valuesOf } from '../types.ts'
import { type FlatLayout, flatLayout } from './flat.ts'
import { type Objective, objectiveProgram } from './graph.ts'
import { balanceBiases, checkRouting, type RoutingOptions, untrained } from './routing.ts'
import type { UpdateResult } from './types.ts'

export interface OptimizerOptions {
  beta1: number
  beta2: number
  epsilon: number
  /** Decoupled, on every parameter, as torch.optim.AdamW does by default. */
  weightDecay: number
  /** Gradients are scaled down to this global norm; 0 for no clipping. */
  maxGradNorm: number
  /** Activations within a layer are computed again in the backward pass instead of being kept. Default false. */
  gradientCheckpointing?: boolean
  /** How mixtures of experts are trained. Default: with everything else, without balancing. */
  routing?: RoutingOptions
}

/** One micro-batch: an objective, its sizes, and the inputs of its program. */
export interface MicroBatch<O = Objective> {
  objective: O
  rows: number
  length: number
  feeds: Record<string, Source>
}

export interface Stepper<O = Objective> {
  /** Gradients of the mean loss over the micro-batches, clipped, then one AdamW update. A non-finite loss or norm is returned and changes nothing. */
  update(microBatches: readonly MicroBatch<O>[], learningRate: number): Promise<UpdateResult>
  loss(microBatch: MicroBatch<O>): Promise<number>
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
  return createUpdater(executor, trainable, initial, options, ({ objective, rows, length, feeds }, gradients) => {
    const settings = { gradients, embeddingNoise: 'embedding_noise' in feeds, gradientCheckpointing, routing }
    const program = objectiveProgram(model, objective, { rows, length }, settings)
    return executor.load(exportOnnx(program).model, { optimize: false })
  })
}

/** What is updated: shapes by name, those that are not trained, and the mixtures of experts that report their load. */
export interface Trainable extends Pick<Model, 'parameters' | 'mixtures'> {
  untrained: ReadonlySet<string>
}

/**
 * Puts parameters on the executor. `open` makes the session of a kind of micro-batch, with the parameters among its inputs;
 * its outputs are those of `objectiveProgram` that the update needs: `loss` and, with gradients, `grad.<parameter>`.
 */
export async function createUpdater<O>(
  executor: Executor,
  model: Trainable,
  initial: ReadonlyMap<string, InitialParameter>,
  options: OptimizerOptions,
  open: (microBatch: MicroBatch<O>, gradients: boolean) => Promise<Session>,
): Promise<Stepper<O>> {
  const { routing = {} } = options
  const untrainedNames = model.untrained
  const layout = flatLayout(new Map([...model.parameters].filter(([name]) => !untrainedNames.has(name))))
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
  let loaded: { key: string; session: Session } | undefined
  const optimizer = await loadOptimizer(executor, layout, options)

  const views = (buffer: string, prefix: string): Record<string, Resident> => {
    const all: Record<string, Resident> = {}
    for (const [name, { offset, shape }] of layout.entries)
      all[`${prefix}${name}`] = { resident: buffer, offset, shape }
    return all
  }
  const { mixtures } = model
  const { biasUpdateRate = 0, auxLossCoefficient = 0 } = routing
  const balanced = auxLossCoefficient > 0
  const trained = views(buffers.parameters, '')
  const parameterFeeds = (): Record<string, Source> => {
    const feeds: Record<string, Source> = { ...trained }
    for (const [name, value] of fixed) feeds[name] = { dtype: 'float32', ...value }
    return feeds
  }

  /** One session exists at a time: each keeps the memory of its activations until it is released. */
  async function session(microBatch: MicroBatch<O>, gradients: boolean): Promise<Session> {
    const { objective, rows, length, feeds } = microBatch
    const key = JSON.stringify([objective, rows, length, gradients, Object.keys(feeds)])
    if (loaded?.key !== key) {
      await release()
      loaded = { key, session: await open(microBatch, gradients) }
    }
    return loaded.session
  }

  async function release(): Promise<void> {
    await loaded?.session.release()
    loaded = undefined
  }

  return {
    async update(microBatches, learningRate) {
      let loss = 0
      let routerAuxLoss = 0
      const load = mixtures.map(({ experts }) => new Array<number>(experts).fill(0))
      const extra = {
        ...(mixtures.length > 0 ? { expert_load: null } : {}),
        ...(balanced ? { router_aux_loss: null } : {}),
      }
      for (const [i, microBatch] of microBatches.entries()) {
        const running = await session(microBatch, true)
        const target = i === 0 ? buffers.gradients : buffers.more
        if (i > 0 && !accumulating) {
          await executor.allocate(buffers.more, 'float32', layout.size)
          accumulating = true
        }
        const outputs = await running.run(
          { ...microBatch.feeds, ...parameterFeeds() },
          { ...views(target, 'grad.'), loss: null, ...extra },
        )
        if (i > 0) await optimizer.accumulate()
        loss += Number(outputs.loss.data[0]) / microBatches.length
        if (balanced) routerAuxLoss += Number(outputs.router_aux_loss.data[0]) / microBatches.length
        load.forEach((layer, at) => {
          for (let e = 0; e < layer.length; e++) layer[e] += Number(outputs.expert_load.data[at * layer.length + e])
        })
      }
      const gradNorm = (await optimizer.norm()) / microBatches.length
      const result = {
        loss,
        gradNorm,
        ...(mixtures.length > 0 ? { expertLoad: load } : {}),
        ...(balanced ? { routerAuxLoss } : {}),
      }
      if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) return result
      updates++
      const clip = options.maxGradNorm > 0 ? Math.min(1, options.maxGradNorm / (gradNorm + 1e-6)) : 1
      await optimizer.update(clip / microBatches.length, learningRate, updates)
      if (biasUpdateRate > 0) balanceBiases(mixtures, load, biasUpdateRate, fixed)
      return result
    },

    async loss(microBatch) {
      const running = await session(microBatch, false)
      const outputs = await running.run({ ...microBatch.feeds, ...parameterFeeds() }, { loss: null })
      return Number(outputs.loss.data[0])
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
  const { chunk, chunks } = layout
  const flat = (name: string) => input(name, 'float32', [chunks, chunk])
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
  const load = (name: string, outputs: Parameters<typeof exportOnnx>[0]['outputs']) =>
    executor.load(exportOnnx({ name, outputs }).model, { optimize: false })
  const updating = await load('adamw', { next_p: nextP, next_m: nextM, next_v: nextV })
  const summing = await load('accumulate', { sum: add(flat('a'), flat('b')) })
  const squaring = await load('norm', { squares: sumSquares(flat('g'), [1]) })
  const whole = (resident: string): Resident => ({ resident, shape: [chunks, chunk] })
  return {
    async accumulate() {
      const into = whole(buffers.gradients)
      await summing.run({ a: into, b: whole(buffers.more) }, { sum: into })
    },
    async norm(): Promise<number> {
      const { squares } = await squaring.run({ g: whole(buffers.gradients) }, { squares: null })
      let total = 0
      for (const value of squares.data as Float32Array) total += value
      return Math.sqrt(total)
    },
    async update(gradientScale: number, learningRate: number, updates: number) {
      const correction1 = 1 - options.beta1 ** updates
      const correction2 = Math.sqrt(1 - options.beta2 ** updates)
      const [parameters, first, second] = [whole(buffers.parameters), whole(buffers.m), whole(buffers.v)]
      await updating.run(
        {
          p: parameters,
          g: whole(buffers.gradients),
          m: first,
          v: second,
          gradient_scale: scalar(gradientScale),
          decay: scalar(1 - learningRate * options.weightDecay),
          step_size: scalar((learningRate * correction2) / correction1),
          epsilon: scalar(options.epsilon * correction2),
        },
        { next_p: parameters, next_m: first, next_v: second },
      )
    },
    async release() {
      for (const session of [updating, summing, squaring]) await session.release()
    },
  }
}
