// From a batch and its noise to the inputs of an objective. Knows the noise and the objectives; runs nothing.
import type { Batch } from '../data/types.ts'
import { drawNoise, type NoiseOptions } from '../diffusion/noise.ts'
import { type LossPositions, lossPositions, noisedIds, type Weighting } from '../diffusion/objective.ts'
import { random } from '../random.ts'
import { type TensorData, UserError } from '../types.ts'
import { inputCopies, type Objective } from './graph.ts'
import type { MicroBatch } from './stepper.ts'

export interface DenoisingOptions {
  /** Id of the mask token. */
  maskTokenId?: number
  /** The state at i - 1 predicts token i; see `PredictionOptions`. Default false. */
  shift?: boolean
  /** Documents are padded to multiples of this; block sizes that divide it never cross a tile. */
  finalBlockSize: number
  /** Width of the embedding. */
  hiddenSize: number
}

export interface PreparedBatch {
  microBatch: MicroBatch
  /** Positions that carry loss. */
  lossPositions: number
}

/** What the noise of one micro-batch depends on. */
export interface Draw {
  blockSize: number
  seed: number
  step: number
  microBatch: number
  noise: NoiseOptions
  weighting: Weighting
  embeddingNoise: number
}

const ints = (shape: readonly number[], values: ArrayLike<number>): TensorData => {
  const data = new BigInt64Array(values.length)
  for (let i = 0; i < values.length; i++) data[i] = BigInt(values[i])
  return { dtype: 'int64', shape, data }
}

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

function microBatchOf(objective: Objective, batch: Batch, ids: Int32Array, positions: LossPositions): MicroBatch {
  const { rows, length } = batch
  const copies = inputCopies(objective)
  return {
    objective,
    rows,
    length,
    feeds: {
      input_ids: ints([copies * rows, length], ids),
      position_ids: ints([copies * rows, length], repeat(batch.positions, copies)),
      document_ids: ints([rows, length], batch.documents),
      ...padded(positions, ids.length),
    },
  }
}

/** Next-token prediction of a batch. */
export function arMicroBatch(batch: Batch): PreparedBatch {
  const positions = nextTokenPositions(batch)
  return {
    microBatch: microBatchOf({ kind: 'ar' }, batch, batch.ids, positions),
    lossPositions: positions.index.length,
  }
}

/** Denoising of a batch: its noise drawn, its copies laid out. */
export function diffusionMicroBatch(batch: Batch, draw: Draw, options: DenoisingOptions): PreparedBatch {
  if (options.maskTokenId === undefined) throw new UserError('a diffusion objective needs a mask token')
  const { blockSize, embeddingNoise } = draw
  const noise = drawNoise(batch, { ...draw.noise, ...draw })
  const { copies } = noise
  const mdlm = blockSize >= batch.length
  const { shift, hiddenSize } = options
  const positions = lossPositions(noise, batch, draw.weighting, { shift, blockSize, cleanCopy: !mdlm })
  const noised = noisedIds(batch.ids, noise.masked, options.maskTokenId)
  const objective: Objective = mdlm
    ? { kind: 'mdlm', copies }
    : { kind: 'bdlm', blockSize, copies, aligned: options.finalBlockSize % blockSize === 0 }
  const ids = mdlm ? noised : concat(noised, batch.ids)
  const microBatch = microBatchOf(objective, batch, ids, positions)
  if (embeddingNoise > 0)
    microBatch.feeds.embedding_noise = {
      dtype: 'float32',
      shape: [inputCopies(objective) * batch.rows, batch.length, hiddenSize],
      data: noiseAt(noise.masked, ids.length, hiddenSize, draw),
    }
  return { microBatch, lossPositions: positions.index.length }
}

/** Gaussian noise of standard deviation `embeddingNoise` at masked positions (LLaDA2.0, section 7.1): [positions, width]. */
function noiseAt(
  masked: Uint8Array,
  positions: number,
  width: number,
  { seed, step, microBatch, embeddingNoise }: Draw,
) {
  const values = new Float32Array(positions * width)
  const draw = random(seed, EMBEDDING_NOISE_STREAM, step, microBatch)
  const row = new Float32Array(width)
  for (let i = 0; i < masked.length; i++) {
    if (masked[i] === 0) continue
    draw.fillNormal(row)
    for (let j = 0; j < width; j++) values[i * width + j] = embeddingNoise * row[j]
  }
  return values
}

function concat(a: Int32Array, b: Int32Array): Int32Array {
  const out = new Int32Array(a.length + b.length)
  out.set(a)
  out.set(b, a.length)
  return out
}
