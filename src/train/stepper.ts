// One update of a model or of an adapter: runs the programs of objectives whose feeds are given.
// It knows nothing about noise, batches or files.

import { type InferenceParameter, type InitialParameter, type Parameter, valuesOf } from '../core/types.ts'
import type { Program } from '../graph/program.ts'
import { isMagnitude, maskEmbeddingName } from '../models/lora.ts'
import type { Model } from '../models/types.ts'
import { formatsOf, loadInference } from '../nn/inference.ts'
import type { Variant } from '../objectives/index.ts'
import type { MicroBatch } from '../objectives/types.ts'
import type { Executor, Resident, Session, Source } from '../runtime/executor.ts'
import { objectiveProgram } from './graph.ts'
import { createOptimizer, type OptimizerOptions, type OptimizerState, scalar } from './optimizer.ts'
import { balanceBiases, checkRouting, loadMetrics, type RoutingOptions, untrained } from './routing.ts'
import type { StepResult, Trainer } from './types.ts'

export interface StepperOptions extends OptimizerOptions {
  /** Activations within a layer are computed again in the backward pass instead of being kept. Default false. */
  gradientCheckpointing?: boolean
  /** How mixtures of experts are trained. Default: with everything else, without balancing. */
  routing?: RoutingOptions
  /**
   * The model's weights where an adapter is trained; they stay as they are, quantised ones too. Default: the model itself is
   * trained.
   */
  base?: ReadonlyMap<string, InferenceParameter>
  /** With `base`: what the low-rank products are multiplied with at every position, as `ObjectiveOptions` has it. */
  loraScale?: number | undefined
}

/** What weight decay acts on: matrices, not norms, biases and embeddings. */
export const isMatrix = (model: Model, name: string): boolean =>
  name !== model.embeddingName &&
  name !== maskEmbeddingName(model) &&
  !isMagnitude(name) &&
  model.parameters.get(name)?.length !== 1

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
  ): Promise<Omit<StepResult, 'flops'>>
  /** The trained weights where they lie on the executor; those that are not trained are not among them. */
  resident?: Readonly<Record<string, Resident>>
  /** The negative log-likelihood of each prediction. */
  nll(microBatch: MicroBatch<Variant>): Promise<Float32Array>
  parameters(): Promise<Map<string, Parameter>>
  optimizerState(): Promise<OptimizerState<Parameter>>
  /** Replaces all weights, and the moments. */
  fill(state: {
    parameters: ReadonlyMap<string, InitialParameter>
    optimizer?: OptimizerState<InitialParameter>
  }): Promise<void>
  /** How checkpoints are written where the weights are not here. Default: by way of what the others return. */
  files?: Pick<Trainer, 'save' | 'restore'>
  dispose(): Promise<void>
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
  { feeds, counts = {} }: MicroBatch<unknown>,
  totals: Readonly<Record<string, number>>,
): Record<string, Source> {
  const divided = { ...feeds }
  for (const name of Object.keys(counts)) {
    const weights = feeds[`${name}_weights`]
    if (!weights || !('data' in weights)) continue
    const data = (weights.data as Float32Array).map((weight) => weight / Math.max(1, totals[name]))
    divided[`${name}_weights`] = { ...weights, data }
  }
  return divided
}

/** What a step reports, of the sums of its micro-batches' outputs; `load` is that of each mixture's experts. */
export function summed(
  sums: ReadonlyMap<string, ArrayLike<number>>,
  totals: Readonly<Record<string, number>>,
  mixtures: Model['mixtures'],
): { loss: number; metrics: StepResult['metrics']; load: number[][] | undefined } {
  const metrics: StepResult['metrics'] = {}
  if (totals.loss_positions !== undefined) metrics.loss_positions = totals.loss_positions
  // A part of the loss that no token belongs to has no value.
  for (const [name, values] of sums)
    if (name !== 'loss' && name !== 'expert_load' && totals[name] !== 0) metrics[name] = values[0]!
  const counts = sums.get('expert_load')
  const load = counts && mixtures.map(({ experts }, at) => Array.from(counts).slice(at * experts, (at + 1) * experts))
  if (load) Object.assign(metrics, loadMetrics(load))
  return { loss: sums.get('loss')![0]!, metrics, load }
}

/**
 * Puts what is trained on the executor: the model's weights, or with `options.base` those of an adapter.
 * Throws UserError where the model cannot be trained as `options.routing` says, or a weight is missing or of another shape.
 */
export async function createStepper(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, InitialParameter>,
  options: StepperOptions,
): Promise<Stepper> {
  const { routing = {}, gradientCheckpointing, base, loraScale } = options
  checkRouting(model, routing)
  const adapter = base && new Map([...initial].map(([name, { shape }]) => [name, shape]))
  const shapes = adapter ?? model.parameters
  const formats = base && formatsOf(base)
  const mixtures = adapter ? [] : model.mixtures
  const fixedNames = adapter ? new Set<string>() : untrained(model, routing)
  const trained = new Map([...shapes].filter(([name]) => !fixedNames.has(name)))
  const optimizer = await createOptimizer(executor, trained, initial, options)
  let fixed = await fixedOf(initial)
  let loaded: { key: string; program: Program; session: Session } | undefined

  async function fixedOf(parameters: ReadonlyMap<string, InitialParameter>): Promise<Map<string, Parameter>> {
    const values = new Map<string, Parameter>()
    for (const [name, parameter] of parameters) if (fixedNames.has(name)) values.set(name, await valuesOf(parameter))
    return values
  }

  function parameterFeeds(): Record<string, Source> {
    const feeds: Record<string, Source> = { ...optimizer.parameters }
    for (const [name, value] of fixed) feeds[name] = { dtype: 'float32', ...value }
    return feeds
  }

  /** One session exists at a time: each keeps the memory of its activations until it is released. */
  async function loadFor({ objective, rows, length }: MicroBatch<Variant>, gradients: boolean) {
    const key = JSON.stringify([objective, rows, length, gradients])
    if (loaded?.key === key) return loaded
    await release()
    const settings = { gradients, gradientCheckpointing, routing, adapter, formats, exact: true, loraScale }
    const program = objectiveProgram(model, objective, { rows, length }, settings)
    const session = base
      ? await loadInference(executor, program, model.parameters, base, { optimize: false })
      : await executor.load(program, { optimize: false })
    loaded = { key, program, session }
    return loaded
  }

  async function release(): Promise<void> {
    await loaded?.session.release()
    loaded = undefined
  }

  return {
    async update(microBatches, learningRate, totals = countsOf(microBatches)) {
      const sums = new Map<string, Float64Array>()
      for (const [i, microBatch] of microBatches.entries()) {
        const { program, session } = await loadFor(microBatch, true)
        const reported = Object.keys(program.outputs).filter((name) => !name.startsWith('grad.'))
        const feeds = { ...normalised(microBatch, totals), ...parameterFeeds() }
        if ('router_aux_loss' in program.outputs)
          feeds.step_share = scalar((microBatch.counts?.tokens ?? 1) / (totals.tokens ?? microBatches.length))
        const outputs = await session.run(feeds, {
          ...(await optimizer.gradients(i)),
          ...Object.fromEntries(reported.map((name) => [name, null])),
        })
        await optimizer.accumulate(i)
        for (const name of reported) {
          const values = Float64Array.from(outputs[name].data, Number)
          sums.set(name, sums.get(name)?.map((value, at) => value + values[at]) ?? values)
        }
      }
      const { loss, metrics, load } = summed(sums, totals, mixtures)
      const gradNorm = await optimizer.norm()
      if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
        await optimizer.update(gradNorm, learningRate)
        if (load && routing.biasUpdateRate) balanceBiases(mixtures, load, routing.biasUpdateRate, fixed)
      }
      return { loss, gradNorm, metrics }
    },

    resident: optimizer.parameters,

    async nll(microBatch) {
      const { session } = await loadFor(microBatch, false)
      const { nll } = await session.run({ ...microBatch.feeds, ...parameterFeeds() }, { nll: null })
      return nll.data as Float32Array
    },

    async parameters() {
      const values = await optimizer.values()
      return new Map([...shapes.keys()].map((name) => [name, (values.get(name) ?? fixed.get(name)) as Parameter]))
    },

    optimizerState: () => optimizer.state(),

    async fill({ parameters, optimizer: state }) {
      await optimizer.fill(parameters, state)
      fixed = await fixedOf(parameters)
    },

    async dispose() {
      await release()
      await optimizer.release()
    },
  }
}
