// The training step on an executor: objective, gradient accumulation, clipping and AdamW over resident flat buffers.
// It knows the model and the noise; it does not know files, schedules or when to stop.
import type { Batch } from '../data/types.ts'
import { drawNoise, type NoiseOptions } from '../diffusion/noise.ts'
import { type LossPositions, lossPositions, noisedIds, type Weighting } from '../diffusion/objective.ts'
import { adamw } from '../graph/ops/adamw.ts'
import { add } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { exportOnnx } from '../graph/program.ts'
import { sumSquares } from '../graph/ops/reduce.ts'
import type { Model } from '../models/types.ts'
import { random } from '../random.ts'
import type { Executor, Resident, Session, Source } from '../runtime/executor.ts'
import { type Parameter, type TensorData, UserError } from '../types.ts'
import { type FlatLayout, flatLayout } from './flat.ts'
import { inputCopies, type Objective, objectiveProgram } from './graph.ts'
import type { StepInput, StepResult, Trainer } from './types.ts'

export interface TrainerOptions {
  /** 'diffusion' (BDLM, MDLM where the block is the whole row) or 'ar'. */
  objective: 'diffusion' | 'ar'
  /** Id of the mask token; not needed for 'ar'. */
  maskTokenId?: number
  weighting: Weighting
  noise: NoiseOptions
  /** Documents are padded to multiples of this; block sizes that divide it never cross a tile. */
  finalBlockSize: number
  seed: number
  beta1: number
  beta2: number
  epsilon: number
  weightDecay: number
  /** Gradients are scaled down to this global norm; 0 for no clipping. */
  maxGradNorm: number
}

/** A batch with its noise, in the form that the objective's program takes. */
interface Feeds {
  objective: Objective
  feeds: Record<string, Source>
  lossPositions: number
}

const ints = (shape: readonly number[], values: ArrayLike<number>): TensorData => {
  const data = new BigInt64Array(values.length)
  for (let i = 0; i < values.length; i++) data[i] = BigInt(values[i])
  return { dtype: 'int64', shape, data }
}

const scalar = (value: number): TensorData => ({ dtype: 'float32', shape: [], data: Float32Array.of(value) })

/** Loss positions are padded with weight 0 to a multiple, so that runs share a few shapes and their memory plans. */
function padded({ index, labels, weights }: LossPositions, capacity: number) {
  const multiple = Math.max(16, Math.ceil(capacity / 16))
  const size = Math.max(multiple, Math.ceil(index.length / multiple) * multiple)
  const pad = (values: Int32Array) => {
    const out = new Int32Array(size)
    out.set(values)
    return out
  }
  const loss = new Float32Array(size)
  loss.set(weights)
  return {
    loss_index: ints([size], pad(index)),
    labels: ints([size], pad(labels)),
    loss_weights: { dtype: 'float32' as const, shape: [size], data: loss },
  }
}

/** Next-token prediction: the logits at i are for token i + 1 of the same document. Prompts carry no loss. */
function nextTokenPositions({ rows, length, ids, documents, maskable }: Batch): LossPositions {
  const index: number[] = []
  const labels: number[] = []
  for (let row = 0; row < rows; row++)
    for (let i = row * length; i < (row + 1) * length - 1; i++)
      if (documents[i] >= 0 && documents[i] === documents[i + 1] && maskable[i + 1]) {
        index.push(i)
        labels.push(ids[i + 1])
      }
  return {
    index: Int32Array.from(index),
    labels: Int32Array.from(labels),
    weights: new Float32Array(index.length).fill(1 / Math.max(1, index.length)),
  }
}

const repeat = (values: Int32Array, times: number): Int32Array => {
  const out = new Int32Array(values.length * times)
  for (let i = 0; i < times; i++) out.set(values, i * values.length)
  return out
}

const EMBEDDING_NOISE_STREAM = 0x656d6264

/** Puts the model's weights on the executor and returns the step that trains them. */
export async function createTrainer(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, Parameter>,
  options: TrainerOptions,
): Promise<Trainer> {
  const layout = flatLayout(model.parameters)
  const names = { parameters: 'parameters', gradients: 'gradients', m: 'exp_avg', v: 'exp_avg_sq', more: 'more' }
  await executor.allocate(names.parameters, 'float32', flatten(layout, initial))
  for (const name of [names.gradients, names.m, names.v]) await executor.allocate(name, 'float32', layout.size)
  let updates = 0
  let accumulating = false
  const sessions = new Map<string, Promise<Session>>()
  const optimizer = await loadOptimizer(executor, layout, options)

  const view = (buffer: string, name: string): Resident => {
    const entry = layout.entries.get(name)
    if (!entry) throw new Error(`no parameter ${name}`)
    return { resident: buffer, offset: entry.offset, shape: entry.shape }
  }
  const parameterFeeds = Object.fromEntries([...layout.entries.keys()].map((name) => [name, view(names.parameters, name)]))
  const gradientFetches = (buffer: string) =>
    Object.fromEntries([...layout.entries.keys()].map((name) => [`grad.${name}`, view(buffer, name)]))

  function session(objective: Objective, batch: Batch, withGradients: boolean, embeddingNoise: boolean): Promise<Session> {
    const key = JSON.stringify([objective, batch.rows, batch.length, withGradients, embeddingNoise])
    let loading = sessions.get(key)
    if (!loading) {
      const program = objectiveProgram(model, objective, batch, { gradients: withGradients, embeddingNoise })
      loading = executor.load(exportOnnx(program).model, { optimize: false })
      sessions.set(key, loading)
    }
    return loading
  }

  function arFeeds(batch: Batch): Feeds {
    const positions = nextTokenPositions(batch)
    return feedsOf({ kind: 'ar' }, batch, batch.ids, positions)
  }

  function diffusionFeeds(
    batch: Batch,
    { blockSize, seed, step, microBatch, noise: noiseOptions, weighting, embeddingNoise }: {
      blockSize: number
      seed: number
      step: number
      microBatch: number
      noise: NoiseOptions
      weighting: Weighting
      embeddingNoise: number
    },
  ): Feeds {
    if (options.maskTokenId === undefined) throw new UserError('a diffusion objective needs a mask token')
    const mdlm = blockSize >= batch.length
    const noise = drawNoise(batch, { ...noiseOptions, blockSize, seed, step, microBatch })
    const positions = lossPositions(noise, batch, weighting)
    const noised = noisedIds(batch.ids, noise.masked, options.maskTokenId)
    const objective: Objective = mdlm
      ? { kind: 'mdlm', copies: noise.copies }
      : { kind: 'bdlm', blockSize, copies: noise.copies, aligned: options.finalBlockSize % blockSize === 0 }
    const ids = mdlm ? noised : concat(noised, batch.ids)
    const result = feedsOf(objective, batch, ids, positions)
    if (embeddingNoise > 0) {
      const width = model.dimensions.hiddenSize
      const values = new Float32Array(ids.length * width)
      const draw = random(seed, EMBEDDING_NOISE_STREAM, step, microBatch)
      const row = new Float32Array(width)
      for (let i = 0; i < noise.masked.length; i++) {
        if (noise.masked[i] === 0) continue
        draw.fillNormal(row)
        for (let j = 0; j < width; j++) values[i * width + j] = embeddingNoise * row[j]
      }
      const shape = [inputCopies(objective) * batch.rows, batch.length, width]
      result.feeds.embedding_noise = { dtype: 'float32', shape, data: values }
    }
    return result
  }

  function feedsOf(objective: Objective, batch: Batch, ids: Int32Array, positions: LossPositions): Feeds {
    const { rows, length } = batch
    const copies = inputCopies(objective)
    return {
      objective,
      lossPositions: positions.index.length,
      feeds: {
        input_ids: ints([copies * rows, length], ids),
        position_ids: ints([copies * rows, length], repeat(batch.positions, copies)),
        document_ids: ints([rows, length], batch.documents),
        ...padded(positions, ids.length),
      },
    }
  }

  return {
    async step({ step, batches, blockSize, learningRate, embeddingNoise }: StepInput): Promise<StepResult> {
      let loss = 0
      let positions = 0
      for (const [microBatch, batch] of batches.entries()) {
        const { objective, feeds, lossPositions } =
          options.objective === 'ar'
            ? arFeeds(batch)
            : diffusionFeeds(batch, {
                blockSize,
                seed: options.seed,
                step,
                microBatch,
                noise: options.noise,
                weighting: options.weighting,
                embeddingNoise,
              })
        const run = await session(objective, batch, true, 'embedding_noise' in feeds)
        const target = microBatch === 0 ? names.gradients : names.more
        if (microBatch > 0 && !accumulating) {
          await executor.allocate(names.more, 'float32', layout.size)
          accumulating = true
        }
        const outputs = await run.run({ ...feeds, ...parameterFeeds }, { ...gradientFetches(target), loss: null })
        if (microBatch > 0) await optimizer.accumulate(names.gradients, names.more)
        loss += Number(outputs.loss.data[0]) / batches.length
        positions += lossPositions
      }
      const norm = (await optimizer.norm(names.gradients)) / batches.length
      const result = { loss, gradNorm: norm, lossPositions: positions }
      // A step that went wrong must not reach the weights: the loop stops on it, and they are still the last good ones.
      if (!Number.isFinite(loss) || !Number.isFinite(norm)) return result
      updates++
      const { maxGradNorm } = options
      const clip = maxGradNorm > 0 && norm > maxGradNorm ? maxGradNorm / (norm + 1e-6) : 1
      await optimizer.update(names, { gradientScale: clip / batches.length, learningRate, updates })
      return result
    },

    async evaluate(batches, { blockSize, seed, samples = 1 }) {
      let total = 0
      let tokens = 0
      for (const [microBatch, batch] of batches.entries())
        for (let sample = 0; sample < (blockSize === 'ar' ? 1 : samples); sample++) {
          const { objective, feeds, lossPositions } =
            blockSize === 'ar'
              ? arFeeds(batch)
              : diffusionFeeds(batch, {
                  blockSize,
                  seed,
                  step: sample,
                  microBatch,
                  noise: { copies: 1 },
                  weighting: 'elbo',
                  embeddingNoise: 0,
                })
          if (lossPositions === 0) continue
          const run = await session(objective, batch, false, false)
          const outputs = await run.run({ ...feeds, ...parameterFeeds }, { loss: null })
          const weight = blockSize === 'ar' ? lossPositions : maskableTokens(batch)
          total += Number(outputs.loss.data[0]) * weight
          tokens += weight
        }
      return { nll: tokens > 0 ? total / tokens : 0, tokens }
    },

    async parameters() {
      return unflatten(layout, (await executor.read(names.parameters)) as Float32Array)
    },

    async optimizerState() {
      const tensors = new Map<string, Parameter>()
      for (const moment of ['exp_avg', 'exp_avg_sq'])
        for (const [name, value] of unflatten(layout, (await executor.read(moment)) as Float32Array))
          tensors.set(`${moment}.${name}`, value)
      return { step: updates, tensors }
    },

    async restore({ parameters, optimizer: state }) {
      await executor.allocate(names.parameters, 'float32', flatten(layout, parameters))
      updates = state?.step ?? 0
      for (const moment of ['exp_avg', 'exp_avg_sq']) {
        const values = new Map<string, Parameter>()
        if (state)
          for (const name of layout.entries.keys()) {
            const tensor = state.tensors.get(`${moment}.${name}`)
            if (!tensor) throw new UserError(`the optimiser state has no ${moment}.${name}`)
            values.set(name, tensor)
          }
        await executor.allocate(moment, 'float32', state ? flatten(layout, values) : layout.size)
      }
    },

    async dispose() {
      for (const loading of sessions.values()) await (await loading).release()
      sessions.clear()
      await optimizer.release()
      for (const name of Object.values(names)) await executor.free(name)
    },
  }
}

function maskableTokens({ maskable }: Batch): number {
  let count = 0
  for (const flag of maskable) count += flag
  return count
}

function concat(a: Int32Array, b: Int32Array): Int32Array {
  const out = new Int32Array(a.length + b.length)
  out.set(a)
  out.set(b, a.length)
  return out
}

function flatten(layout: FlatLayout, values: ReadonlyMap<string, Parameter>): Float32Array {
  const flat = new Float32Array(layout.size)
  for (const [name, { offset, size, shape }] of layout.entries) {
    const value = values.get(name)
    if (!value) throw new UserError(`the weights have no tensor ${name}`)
    if (value.data.length !== size)
      throw new UserError(`tensor ${name} has shape [${value.shape}], the model needs [${shape}]`)
    flat.set(value.data, offset)
  }
  return flat
}

function unflatten(layout: FlatLayout, flat: Float32Array): Map<string, Parameter> {
  const values = new Map<string, Parameter>()
  for (const [name, { offset, size, shape }] of layout.entries)
    values.set(name, { shape, data: flat.subarray(offset, offset + size) })
  return values
}

/** The sessions that work on whole flat buffers: sum, norm and update. */
async function loadOptimizer(executor: Executor, layout: FlatLayout, options: TrainerOptions) {
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
    async accumulate(into: string, from: string) {
      await summing.run({ a: whole(into), b: whole(from) }, { sum: whole(into) })
    },
    async norm(gradients: string): Promise<number> {
      const { squares } = await squaring.run({ g: whole(gradients) }, { squares: null })
      let total = 0
      for (const value of squares.data as Float32Array) total += value
      return Math.sqrt(total)
    },
    async update(
      names: { parameters: string; gradients: string; m: string; v: string },
      { gradientScale, learningRate, updates }: { gradientScale: number; learningRate: number; updates: number },
    ) {
      const correction1 = 1 - options.beta1 ** updates
      const correction2 = Math.sqrt(1 - options.beta2 ** updates)
      const [parameters, first, second] = [whole(names.parameters), whole(names.m), whole(names.v)]
      await updating.run(
        {
          p: parameters,
          g: whole(names.gradients),
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
