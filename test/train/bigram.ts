// A block-diffusion bigram model with exact gradients and AdamW in plain TypeScript, and an endless text for it: the
// smallest real trainer, for tests of the loop. Used by tests only.

import { random } from '../../src/core/random.ts'
import { type InitialParameter, type Parameter, valuesOf } from '../../src/core/types.ts'
import type { Batch, BatchSource } from '../../src/data/types.ts'
import { lossPositions, noisedIds } from '../../src/diffusion/loss-positions.ts'
import { drawNoise } from '../../src/diffusion/noise.ts'
import { trainedFiles } from '../../src/train/trained-files.ts'
import type { LocalTrainer } from '../../src/train/trainer.ts'

export const vocabSize = 17
const maskTokenId = vocabSize - 1
const rows = 2
const length = 32

/**
 * Text of a rule with exceptions: the next token is 3 x + 1 modulo 16 in four of five cases.
 * `from` tells one text from another; the position is the number of batches read.
 */
export function ruleText(seed: number): BatchSource {
  let index = 0
  return {
    next: async () => ruleBatch(seed, index++),
    position: () => ({ index }),
    restore: async (position) => {
      index = position.index as number
    },
  }
}

export function ruleBatch(seed: number, index: number): Batch {
  const size = rows * length
  const ids = new Int32Array(size)
  const positions = new Int32Array(size)
  const documents = new Int32Array(size)
  const maskable = new Uint8Array(size)
  const draws = random(seed, index)
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < length; i++) {
      const at = row * length + i
      const position = i % 16
      positions[at] = position
      documents[at] = i < 16 ? 0 : 1
      maskable[at] = position < 3 ? 0 : 1
      const follows = position > 0 && draws.uniform() < 0.8
      ids[at] = follows ? (3 * ids[at - 1]! + 1) % 16 : draws.integer(16)
    }
  }
  const documentIds = [0, 1, 2, 3].map((document) => `rule:${4 * index + document}`)
  return {
    rows,
    length,
    ids,
    documents,
    positions,
    maskable,
    padding: new Uint8Array(size),
    documentIds,
    tokens: size,
    bytes: 50,
  }
}

/** Predicts a token from the one before it: clean where that lies in an earlier block, noised in the same block. */
export function bigramTrainer(seed: number): LocalTrainer {
  const weight = new Float32Array((vocabSize + 1) * vocabSize) // the last row stands for the start of a document
  let average = new Float32Array(weight.length)
  let averageSquare = new Float32Array(weight.length)
  let updates = 0

  /** Log-probabilities after token `previous`, with `noise` added to the logits. */
  function logProbabilities(previous: number, noise: Float64Array | undefined): Float64Array {
    const logits = Float64Array.from(
      weight.subarray(previous * vocabSize, (previous + 1) * vocabSize),
      (value, token) => value + (noise?.[token] ?? 0),
    )
    const largest = Math.max(...logits)
    const normaliser = largest + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - largest), 0))
    return logits.map((value) => value - normaliser)
  }

  function diffusionLoss(
    batch: Batch,
    draw: { blockSize: number; step: number; row: number; seed: number; sigma: number },
    gradient?: Float64Array,
  ): { loss: number; positions: number } {
    const noise = drawNoise(batch, { ...draw, copies: 2, complementary: true })
    const noised = noisedIds(batch.ids, noise, maskTokenId)
    const { index, labels, weights } = lossPositions(noise, batch, batch.maskable, 'elbo')
    const tokens = 2 * batch.maskable.filter((flag) => flag === 1).length
    const share = weights.map((value) => value / tokens)
    const size = batch.rows * batch.length
    const gaussian = random(draw.seed, 1, draw.step, draw.row)
    let loss = 0
    for (const [i, flat] of index.entries()) {
      const position = batch.positions[flat % size]!
      const inBlock = position % draw.blockSize > 0
      const previous = position === 0 ? vocabSize : (inBlock ? noised[flat - 1] : batch.ids[(flat - 1) % size])!
      const embeddingNoise =
        draw.sigma > 0 && previous === maskTokenId
          ? Float64Array.from({ length: vocabSize }, () => draw.sigma * gaussian.normal())
          : undefined
      const log = logProbabilities(previous, embeddingNoise)
      loss -= share[i]! * log[labels[i]!]!
      if (!gradient) continue
      for (let token = 0; token < vocabSize; token++) {
        const target = token === labels[i] ? 1 : 0
        gradient[previous * vocabSize + token]! += share[i]! * (Math.exp(log[token]!) - target)
      }
    }
    return { loss, positions: index.length }
  }

  function causalLoss(batch: Batch): { sum: number; tokens: number } {
    let sum = 0
    let tokens = 0
    for (let i = 0; i < batch.ids.length; i++) {
      if (batch.maskable[i] === 0) continue
      sum -= logProbabilities(batch.positions[i] === 0 ? vocabSize : batch.ids[i - 1]!, undefined)[batch.ids[i]!]!
      tokens++
    }
    return { sum, tokens }
  }

  const parameter = (data: Float32Array): Parameter => ({ shape: [vocabSize + 1, vocabSize], data: data.slice() })

  const state: Pick<LocalTrainer, 'parameters' | 'optimizerState' | 'fill'> = {
    async parameters() {
      return new Map([['bigram.weight', parameter(weight)]])
    },

    async optimizerState() {
      const tensors = new Map([
        ['exp_avg.bigram.weight', parameter(average)],
        ['exp_avg_sq.bigram.weight', parameter(averageSquare)],
      ])
      return { step: updates, tensors }
    },

    async fill({ parameters, optimizer }) {
      const read = async (values: ReadonlyMap<string, InitialParameter>, name: string) =>
        (await valuesOf(values.get(name)!)).data
      weight.set(await read(parameters, 'bigram.weight'))
      if (!optimizer) return
      updates = optimizer.step
      average = (await read(optimizer.tensors, 'exp_avg.bigram.weight')).slice()
      averageSquare = (await read(optimizer.tensors, 'exp_avg_sq.bigram.weight')).slice()
    },
  }

  return {
    async step({ step, batches, blockSize, learningRate, embeddingNoise }) {
      const gradient = new Float64Array(weight.length)
      let loss = 0
      let positions = 0
      for (const [microBatch, batch] of batches.entries()) {
        const draw = { blockSize, step, row: microBatch * rows, seed, sigma: embeddingNoise }
        const result = diffusionLoss(batch, draw, gradient)
        loss += result.loss / batches.length
        positions += result.positions
      }
      const gradNorm = Math.hypot(...gradient) / batches.length
      const scale = Math.min(1, 1 / gradNorm) / batches.length
      updates++
      for (let i = 0; i < weight.length; i++) {
        const g = gradient[i]! * scale
        average[i] = 0.9 * average[i]! + 0.1 * g
        averageSquare[i] = 0.95 * averageSquare[i]! + 0.05 * g * g
        const update = average[i]! / (1 - 0.9 ** updates)
        const spread = Math.sqrt(averageSquare[i]! / (1 - 0.95 ** updates)) + 1e-8
        weight[i] = weight[i]! - learningRate * (update / spread + 0.01 * weight[i]!)
      }
      return { loss, gradNorm, metrics: { loss_positions: positions }, flops: 6 * weight.length * positions }
    },

    async evaluate(batches, { blockSize, seed: evaluationSeed, samples = 4 }) {
      let sum = 0
      let tokens = 0
      for (const [microBatch, batch] of batches.entries()) {
        const causal = causalLoss(batch)
        tokens += causal.tokens
        if (blockSize === 'ar') {
          sum += causal.sum
          continue
        }
        for (let sample = 0; sample < samples; sample++) {
          const draw = { blockSize, step: sample, row: microBatch * rows, seed: evaluationSeed, sigma: 0 }
          sum += (diffusionLoss(batch, draw).loss * causal.tokens) / samples
        }
      }
      const [nll, bytes] = [sum / tokens, batches.reduce((total, batch) => total + batch.bytes, 0)]
      const bitsPerByte = (nll * tokens) / (bytes * Math.LN2)
      return { nll, stderr: 0, bitsPerByte, bitsPerByteStderr: 0, tokens, bytes }
    },

    ...state,
    ...trainedFiles(state),
    async dispose() {},
  }
}

/** Options of a short run through several block sizes, with everything that a resume must bring back. */
export function bigramRun(runDirectory: string) {
  return {
    trainer: bigramTrainer(11),
    source: ruleText(1),
    validation: [ruleBatch(2, 0), ruleBatch(2, 1)],
    schedule: [
      { blockSize: 1, tokens: 2000 },
      { blockSize: 4, tokens: 3000 },
      { blockSize: 32, tokens: 3000 },
      { blockSize: 8, tokens: 7000 },
    ],
    seed: 11,
    accumulation: 2,
    learningRate: { lr: 0.05 },
    embeddingNoise: { sigma: 0.5, steps: 60, decay: 'linear' as const },
    validateEvery: 10,
    saveEvery: 7,
    runDirectory,
  }
}
