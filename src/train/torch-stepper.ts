// A stepper whose programs PyTorch runs and differentiates. Weights, moments and gradients lie in its process; batches,
// noise and objectives are prepared here as for any other.
import { resolve } from 'node:path'
import { type DeferredParameter, type WritableTensors, writeSafetensors } from '../checkpoint/safetensors-write.ts'
import { type InitialParameter, type Parameter, type TensorData, UserError, valuesOf } from '../core/types.ts'
import type { Model } from '../models/types.ts'
import type { Variant } from '../objectives/index.ts'
import type { MicroBatch } from '../objectives/types.ts'
import { floatValues } from '../quant/layout.ts'
import type { Source } from '../runtime/executor.ts'
import type { TorchProcess } from '../runtime/torch/process.ts'
import { loadProgram } from '../runtime/torch/run.ts'
import { lossProgram } from './graph.ts'
import { scalar } from './optimizer.ts'
import { balanceBiases, checkRouting, untrained } from './routing.ts'
import { countsOf, normalised, type Stepper, type StepperOptions, summed } from './stepper.ts'
import { storedWeights } from './trained-files.ts'

/** What products and activations are computed in. Weights, moments, norms, softmax and losses are float32. */
export const torchTypes = ['float32', 'bfloat16'] as const
export type TorchType = (typeof torchTypes)[number]

export interface TorchStepperOptions extends StepperOptions {
  dtype: TorchType
  /** Threads of PyTorch, of all processes together. 0: as many as it likes. */
  threads: number
  /** Processes among which the experts of a layer are divided; divides the number of processes. Default 1. */
  expertParallel?: number
}

/**
 * Puts what is trained into the process: the model's weights, or with `options.base` those of an adapter. The process belongs to
 * the stepper from then on. A quantised base is float32 there. Throws UserError as `createStepper`
 * does.
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
  let fixed = await fixedOf(initial)
  const loaded = new Set<string>()

  const files = [await stored(namedValues(initial, trainedNames))]
  if (base) files.push(await stored(namedValues(floats(base), [...model.parameters.keys()])))
  await torch.request('start', {
    options: {
      beta1: options.beta1,
      beta2: options.beta2,
      epsilon: options.epsilon,
      weight_decay: options.weightDecay,
      max_grad_norm: options.maxGradNorm,
      decays: trainedNames.filter((name) => options.decays?.(name) ?? true),
      dtype: options.dtype,
      threads: options.threads > 0 ? Math.max(1, Math.floor(options.threads / torch.processes)) : 0,
      expert_parallel: options.expertParallel ?? 1,
      recompute: options.gradientCheckpointing ?? false,
    },
    trained: files[0],
    frozen: files[1] ?? null,
  })
  await torch.remove(...files)

  /** Writes tensors to a new file, one after the other, so that they are never all here. */
  async function stored(values: WritableTensors): Promise<string> {
    const path = torch.file()
    await writeSafetensors(path, values)
    return path
  }

  /** Parameters of these names, of the shapes that the model needs; read when they are used. */
  function namedValues(
    values: ReadonlyMap<string, InitialParameter>,
    names: readonly string[],
  ): Map<string, DeferredParameter> {
    const found = new Map<string, DeferredParameter>()
    for (const name of names) {
      const value = values.get(name)
      const shape = shapes.get(name) ?? model.parameters.get(name)
      if (!value) throw new UserError(`tensor ${name} is missing`)
      if (value.shape.join() !== shape?.join())
        throw new UserError(`tensor ${name} has shape [${value.shape}], the model needs [${shape}]`)
      found.set(name, { shape: value.shape, read: async () => (await valuesOf(value)).data })
    }
    return found
  }

  async function fixedOf(values: ReadonlyMap<string, InitialParameter>): Promise<Map<string, Parameter>> {
    const found = new Map<string, Parameter>()
    for (const [name, { shape, read }] of namedValues(values, [...fixedNames]))
      found.set(name, { shape, data: await read() })
    return found
  }

  /** Sees to it that the programs of these micro-batches are loaded, and others are not; their names. */
  async function loadFor(microBatches: readonly MicroBatch<Variant>[]): Promise<string[]> {
    const ids = microBatches.map(({ objective, rows, length }) => JSON.stringify([objective, rows, length]))
    const missing = [...new Set(ids)].filter((id) => !loaded.has(id))
    for (const [i, id] of missing.entries()) {
      const { objective, rows, length } = microBatches[ids.indexOf(id)]!
      const alone = i === 0 && ids.every((other) => !loaded.has(other))
      if (alone) loaded.clear()
      const program = lossProgram(model, objective, { rows, length }, { routing, adapter, loraScale })
      await loadProgram(torch, id, program, alone)
      loaded.add(id)
    }
    return ids
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
      const { processes } = torch
      if (microBatches.length % processes !== 0)
        throw new UserError(
          `a step of ${microBatches.length} micro-batches cannot be shared by ${processes} processes; ` +
            'make train.global_batch_size a multiple of train.micro_batch_size x processes',
        )
      const sums = new Map<string, number[]>()
      for (let start = 0; start < microBatches.length; start += processes) {
        // One for each process. Which process runs one does not change what it is.
        const round = microBatches.slice(start, start + processes)
        const ids = await loadFor(round)
        const files: string[] = []
        for (const microBatch of round) {
          const share = (microBatch.counts?.tokens ?? 1) / (totals.tokens ?? microBatches.length)
          files.push(await given({ ...normalised(microBatch, totals), step_share: scalar(share) }))
        }
        const { outputs } = await torch.request<{ outputs: Record<string, number[]> }>('gradients', {
          batches: files.map((feeds, i) => ({ id: ids[i], feeds })),
          first: start === 0,
        })
        await torch.remove(...files)
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
      const [id] = await loadFor([microBatch])
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
      fixed = await fixedOf(parameters)
      const files = [await stored(namedValues(parameters, trainedNames))]
      if (optimizer) files.push(await stored(deferred(optimizer.tensors)))
      await torch.request('fill', {
        trained: files[0],
        ...(optimizer && { moments: files[1], updates: optimizer.step }),
      })
      await torch.remove(...files)
    },

    files: {
      async save(folder) {
        const extra = fixed.size > 0 ? await stored(fixed) : null
        const { updates } = await torch.request<{ updates: number }>('save', { folder: resolve(folder), extra })
        if (extra) await torch.remove(extra)
        return updates
      },
      async restore(folder, updates) {
        fixed = await fixedOf(await storedWeights(folder))
        await torch.request('restore', { folder: resolve(folder), updates })
      },
    },

    dispose: () => torch.dispose(),
  }
}

const asParameters = (tensors: ReadonlyMap<string, TensorData>): Map<string, Parameter> =>
  new Map([...tensors].map(([name, { shape, data }]) => [name, { shape: [...shape], data: data as Float32Array }]))

const deferred = (tensors: ReadonlyMap<string, InitialParameter>): Map<string, DeferredParameter> =>
  new Map(
    [...tensors].map(([name, tensor]) => [
      name,
      { shape: tensor.shape, read: async () => (await valuesOf(tensor)).data },
    ]),
  )

/** The base's values, quantised ones as the numbers that they stand for; read when they are used. */
function floats(base: NonNullable<StepperOptions['base']>): Map<string, InitialParameter> {
  const values = new Map<string, InitialParameter>()
  for (const [name, value] of base) {
    const { shape } = value
    const read = async () => ({ shape, data: await floatValues(value) })
    values.set(name, { shape, format: undefined, read })
  }
  return values
}
