// bench preference: how much the gradient of preference training scatters over draws of the noise, by how answers are measured.
import { parseArgs } from 'node:util'
import { load } from '../src/checkpoint/load.ts'
import type { Parameter, TensorData } from '../src/core/types.ts'
import { eosId } from '../src/data/document.ts'
import { pairBatches, readPairs } from '../src/data/pairs.ts'
import type { Batch, PairLikelihoods } from '../src/data/types.ts'
import { likelihoodOf } from '../src/jobs/dpo.ts'
import { parsePreferenceRecipe } from '../src/jobs/dpo-recipe.ts'
import { type DpoSettings, dpo, pairLikelihoods } from '../src/objectives/dpo.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { documentStyle } from '../src/text/prompt.ts'
import { objectiveProgram } from '../src/train/graph.ts'
import { createPreferenceTrainer } from '../src/train/preference.ts'
import { countsOf, normalised } from '../src/train/stepper.ts'
import { report } from './measure.ts'

export const usage = `usage: npm run bench -- preference --model MODEL --data FILE [flags]

MODEL is a model of block diffusion, FILE holds preference pairs. Trains MODEL on some pairs, so that it is no longer the
reference, then takes the gradient of one batch of others again and again with other draws. Prints for each way of measuring
answers the total variance of the gradient with its standard error, beside that of one draw, and the positions that a step
computes.

  --pairs N       pairs of the batch (default 8)
  --seeds N       gradients of each way, an even number (default 48)
  --steps N       training steps before (default 12)
  --lr X          their learning rate (default 1e-4)
  --beta X        (default 0.1)
  --length N      most tokens of an answer with its prompt (default 128)
  --threads N     threads (default: the cores of the machine)
`

interface Way {
  name: string
  draws: number
  antithetic?: boolean
  /** The reference is measured with draws of its own. */
  apart?: boolean
}

const ways: Way[] = [
  { name: 'one draw', draws: 1 },
  { name: 'one draw, another for the reference', draws: 1, apart: true },
  ...[4, 8].map((draws) => ({ name: `${draws} draws`, draws })),
  { name: '8 draws, others for the reference', draws: 8, apart: true },
  ...[4, 8].map((draws) => ({ name: `${draws} draws, antithetic`, draws, antithetic: true })),
]

export async function run(args: string[]): Promise<void> {
  const { values: flags } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      data: { type: 'string' },
      pairs: { type: 'string', default: '8' },
      seeds: { type: 'string', default: '48' },
      steps: { type: 'string', default: '12' },
      lr: { type: 'string', default: '1e-4' },
      beta: { type: 'string', default: '0.1' },
      length: { type: 'string', default: '128' },
      threads: { type: 'string' },
    },
  })
  const recipe = parsePreferenceRecipe({
    model: flags.model,
    output_dir: 'unused',
    data: { train_path: flags.data, max_seq_len: Number(flags.length) },
    preference: { beta: Number(flags.beta) },
  })
  const loaded = await load(recipe.model)
  const { model, tokenizer, parameters: reference } = loaded
  const likelihood = likelihoodOf(recipe, model)
  if (likelihood.exact) throw new Error(`${recipe.model} has an exact likelihood: there is nothing to draw`)
  const { pairs } = await readPairs({
    ...{ paths: recipe.data.train_path, tokenizer, length: recipe.data.max_seq_len },
    rendering: { ...documentStyle(loaded), turns: 'all' },
  })
  const [count, steps, seeds] = [Number(flags.pairs), Number(flags.steps), Number(flags.seeds)]
  const packing = {
    ...{ rows: 2 * count, length: recipe.data.max_seq_len, blockSize: likelihood.blockSize },
    ...{ eosId: eosId(tokenizer), byteLength: tokenizer.byteLength },
  }
  const batchOf = (index: number) =>
    pairBatches(
      pairs.slice(index * count, (index + 1) * count).map((pair) => ({ pair, epoch: 0 })),
      packing,
    )[0]!
  const settings: DpoSettings = {
    ...{ ...likelihood, finalBlockSize: likelihood.blockSize, hiddenSize: model.dimensions.hiddenSize },
    ...{ beta: recipe.preference.beta, labelSmoothing: 0, draws: 8, antithetic: false, lengthNormalization: false },
  }
  const executor = createExecutor(flags.threads ? { threads: Number(flags.threads) } : {})
  try {
    const trainer = await createPreferenceTrainer(executor, model, reference, {
      ...{ ...settings, seed: 0, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    })
    const trained: Batch[] = []
    for (let i = 0; i < steps; i++) {
      const batch = batchOf(1 + i)
      trained.push(withReference(batch, await trainer.likelihoods(batch, { heldOut: undefined })))
    }
    for (const [step, batch] of trained.entries())
      await trainer.step({
        ...{ step, batches: [batch], blockSize: settings.blockSize },
        ...{ learningRate: Number(flags.lr), embeddingNoise: 0 },
      })
    const policy = await trainer.parameters()
    await trainer.dispose()

    const batch = batchOf(0)
    const prepared = (way: Way, seed: number, of: Batch) =>
      dpo.prepare(of, { seed, step: 0, row: 0 }, { ...settings, draws: way.draws, antithetic: way.antithetic ?? false })
    const { objective, rows, length } = prepared(ways[0]!, 0, batch)
    const load = (gradients: boolean) =>
      executor.load(objectiveProgram(model, objective, { rows, length }, { gradients }), { optimize: false })
    const [measuring, training] = [await load(false), await load(true)]
    const results: { way: Way; variances: number[]; positions: number }[] = []
    for (const way of ways) {
      // Half of the squared difference of two gradients estimates their variance without bias.
      const variances: number[] = []
      let positions = 0
      let last: Float32Array[] = []
      for (let seed = 0; seed < seeds; seed++) {
        const measured = prepared(way, way.apart ? seeds + seed : seed, batch)
        const { nll } = await measuring.run({ ...measured.feeds, ...tensors(reference) }, { nll: null })
        const paired = withReference(batch, pairLikelihoods(measured, nll!.data as Float32Array))
        const microBatch = prepared(way, seed, paired)
        const names = [...policy.keys()].map((name) => `grad.${name}`)
        const outputs = await training.run(
          { ...normalised(microBatch, countsOf([microBatch])), ...tensors(policy) },
          Object.fromEntries(names.map((name) => [name, null])),
        )
        const gradient = names.map((name) => outputs[name]!.data as Float32Array)
        if (seed % 2 === 1) variances.push(squaredDistance(gradient, last) / 2)
        last = gradient
        positions += (microBatch.feeds.input_ids as TensorData).data.length / seeds
      }
      results.push({ way, variances, positions })
    }
    await measuring.release()
    await training.release()
    const peer = results[0]!
    for (const { way, variances, positions } of results) {
      const line = { bench: 'preference', case: way.name, peer: peer.way.name }
      const value = mean(variances)
      const error = Math.sqrt(mean(variances.map((x) => (x - value) ** 2)) / Math.max(1, variances.length - 1))
      report({ ...line, value, unit: 'variance of the gradient', peerValue: mean(peer.variances), error })
      report({ ...line, value: positions, unit: 'positions of a step', peerValue: peer.positions })
    }
  } finally {
    await executor.dispose()
  }
}

const withReference = (batch: Batch, references: readonly PairLikelihoods[]): Batch => ({
  ...batch,
  pairs: batch.pairs!.map((pair, i) => ({ ...pair, reference: references[i]! })),
})

const tensors = (parameters: ReadonlyMap<string, Parameter>): Record<string, TensorData> =>
  Object.fromEntries([...parameters].map(([name, value]) => [name, { dtype: 'float32', ...value }]))

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

function squaredDistance(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  let sum = 0
  for (const [i, values] of a.entries()) for (const [j, value] of values.entries()) sum += (value - b[i]![j]!) ** 2
  return sum
}
