// A stepper whose programs PyTorch runs and differentiates. Weights, moments and gradients lie in its process; batches,
// noise and objectives are prepared here as for any other.
import { writeSafetensors } from '../checkpoint/safetensors-write.ts'
import {
  type InitialParameter,
  isQuantized,
  type Parameter,
  type TensorData,
  UserError,
  valuesOf,
} from '../core/types.ts'
import type { Model } from '../models/types.ts'
import type { Variant } from '../objectives/index.ts'
import type { MicroBatch } from '../objectives/types.ts'
import type { Source } from '../runtime/executor.ts'
import type { TorchProcess } from '../runtime/torch/process.ts'
import { loadProgram } from '../runtime/torch/run.ts'
import { lossProgram } from './graph.ts'
import { scalar } from './optimizer.ts'
import { balanceBiases, checkRouting, untrained } from './routing.ts'
import { countsOf, normalised, type Stepper, type StepperOptions, summed } from './stepper.ts'

/** What products and activations are computed in. Weights, moments, norms, softmax and losses are float32. */
export const torchTypes = ['float32', 'bfloat16'] as const
export type TorchType = (typeof torchTypes)[number]

export interface TorchStepperOptions extends StepperOptions {
  dtype: TorchType
  /** Threads of PyTorch. 0: as many as it likes. */
  threads: number
}

/**
 * Puts what is trained into the process: the model's weights, or with `options.base` those of an adapter. The process belongs to
 * the stepper from then on. Throws UserError as `createStepper` does, and where the base is quantised.
 */
export async function createTorchStepper(
  torch: TorchProcess,
  model: Model,
  initial: ReadonlyMap<string, InitialParameter>,
  options: TorchStepperOptions,
): Promise<Stepper> {
  const { routing = {}, base, loraScale } = options
  checkRouting(model, routing)
  const adapter = base && new Map([...initial].map(([name, { shape }]) => [name, shape]))
  const shapes = adapter ?? model.parameters
  const mixtures = adapter ? [] : model.mixtures
  const fixedNames = adapter ? new Set<string>() : untrained(model, routing)
  const trainedNames = [...shapes.keys()].filter((name) => !fixedNames.has(name))
  let fixed = await namedValues(initial, [...fixedNames])
  let loaded: string | undefined

  await torch.request('start', {
    options: {
      beta1: options.beta1,
      beta2: options.beta2,
      epsilon: options.epsilon,
      weight_decay: options.weightDecay,
      max_grad_norm: options.maxGradNorm,
      decays: trainedNames.filter((name) => options.decays?.(name) ?? true),
      dtype: options.dtype,
      threads: options.threads,
    },
    trained: await stored(await namedValues(initial, trainedNames)),
    frozen: base ? await stored(await namedValues(floats(base), [...model.parameters.keys()])) : null,
  })

  async function stored(values: ReadonlyMap<string, Parameter>): Promise<string> {
    const path = torch.file()
    await writeSafetensors(path, values)
    return path
  }

  /** Parameters of these names, of the shapes that the model needs. */
  async function namedValues(
    values: ReadonlyMap<string, InitialParameter>,
    names: readonly string[],
  ): Promise<Map<string, Parameter>> {
    const found = new Map<string, Parameter>()
    for (const name of names) {
      const value = values.get(name)
      const shape = shapes.get(name) ?? model.parameters.get(name)
      if (!value) throw new UserError(`tensor ${name} is missing`)
      if (value.shape.join() !== shape?.join())
        throw new UserError(`tensor ${name} has shape [${value.shape}], the model needs [${shape}]`)
      found.set(name, { shape: value.shape, data: (await valuesOf(value)).data })
    }
    return found
  }

  /** The program of a micro-batch is the one that is loaded; its name. */
  async function loadFor({ objective, rows, length }: MicroBatch<Variant>): Promise<string> {
    const id = JSON.stringify([objective, rows, length])
    if (loaded === id) return id
    await loadProgram(torch, id, lossProgram(model, objective, { rows, length }, { routing, adapter, loraScale }))
    loaded = id
    return id
  }

  /** Feeds as a file. */
  function given(feeds: Record<string, Source>): Promise<string> {
    const tensors = new Map<string, TensorData>()
    for (const [name, value] of Object.entries(feeds)) {
      if (!('data' in value)) throw new Error(`${name}: a resident buffer cannot be given to PyTorch`)
      tensors.set(name, value)
    }
    for (const [name, value] of fixed) tensors.set(name, { dtype: 'float32', ...value })
    return torch.put(tensors)
  }

  return {
    async update(microBatches, learningRate, totals = countsOf(microBatches)) {
      const sums = new Map<string, number[]>()
      for (const [i, microBatch] of microBatches.entries()) {
        const id = await loadFor(microBatch)
        const share = (microBatch.counts?.tokens ?? 1) / (totals.tokens ?? microBatches.length)
        const feeds = await given({ ...normalised(microBatch, totals), step_share: scalar(share) })
        const { outputs } = await torch.request<{ outputs: Record<string, number[]> }>('gradients', {
          id,
          feeds,
          first: i === 0,
        })
        await torch.remove(feeds)
        for (const [name, values] of Object.entries(outputs))
          sums.set(name, sums.get(name)?.map((value, at) => value + values[at]!) ?? values)
      }
      const { norm: gradNorm } = await torch.request<{ norm: number }>('norm')
      const { loss, metrics, load } = summed(sums, totals, mixtures)
      if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
        await torch.request('update', { norm: gradNorm, learning_rate: learningRate })
        if (load && routing.biasUpdateRate) balanceBiases(mixtures, load, routing.biasUpdateRate, fixed)
      }
      return { loss, gradNorm, metrics }
    },

    async nll(microBatch) {
      const id = await loadFor(microBatch)
      const [feeds, out] = [await given({ ...microBatch.feeds, step_share: scalar(1) }), torch.file()]
      await torch.request('nll', { id, feeds, out })
      await torch.remove(feeds)
      return (await torch.take(out)).get('nll')!.data as Float32Array
    },

    async parameters() {
      const out = torch.file()
      await torch.request('parameters', { out })
      const values = asParameters(await torch.take(out))
      return new Map([...shapes.keys()].map((name) => [name, (values.get(name) ?? fixed.get(name)) as Parameter]))
    },

    async optimizerState() {
      const out = torch.file()
      const { updates } = await torch.request<{ updates: number }>('state', { out })
      return { step: updates, tensors: asParameters(await torch.take(out)) }
    },

    async fill({ parameters, optimizer }) {
      fixed = await namedValues(parameters, [...fixedNames])
      const moments = optimizer && (await allValues(optimizer.tensors))
      await torch.request('fill', {
        trained: await stored(await namedValues(parameters, trainedNames)),
        ...(moments && { moments: await stored(moments), updates: optimizer.step }),
      })
    },

    dispose: () => torch.dispose(),
  }
}

const asParameters = (tensors: ReadonlyMap<string, TensorData>): Map<string, Parameter> =>
  new Map([...tensors].map(([name, { shape, data }]) => [name, { shape: [...shape], data: data as Float32Array }]))

async function allValues(tensors: ReadonlyMap<string, InitialParameter>): Promise<Map<string, Parameter>> {
  const values = new Map<string, Parameter>()
  for (const [name, tensor] of tensors) values.set(name, { shape: tensor.shape, data: (await valuesOf(tensor)).data })
  return values
}

/** The weights of a base. Throws UserError where they are quantised. */
function floats(base: NonNullable<StepperOptions['base']>): Map<string, InitialParameter> {
  const values = new Map<string, InitialParameter>()
  for (const [name, value] of base) {
    if (isQuantized(value))
      throw new UserError('PyTorch trains on float weights only; name the base that is not quantised')
    values.set(name, value as InitialParameter)
  }
  return values
}
