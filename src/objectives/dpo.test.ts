// The preference objective: its loss against the formula, its gradients against finite differences, for every kind of likelihood.
import { afterAll, describe, expect, it } from 'vitest'
import { pairedBatch } from '../../test/paired-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { expectGradients, runObjective } from '../../test/train/objective.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { type DpoSettings, dpo, pairLikelihoods, preferenceLoss, rewards } from './dpo.ts'
import type { Variant } from './index.ts'
import type { MicroBatch } from './types.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const MASK = 39
const STEP = 0.001
const { model, weights } = tinyLlama()
const at = { seed: 3, step: 0, row: 0 }
const settings: DpoSettings = {
  ...{ beta: 0.3, labelSmoothing: 0.1, draws: 2, antithetic: false, lengthNormalization: false },
  ...{ exact: false, maskTokenId: MASK, blockSize: 4, finalBlockSize: 4, hiddenSize: 32 },
}
const batch = pairedBatch({ length: 16, blockSize: 4 })
const cases: [string, DpoSettings][] = [
  ['the bound of blocks', settings],
  ['the bound of blocks, shifted', { ...settings, shift: true, antithetic: true }],
  ['the bound of whole documents', { ...settings, blockSize: 16 }],
  ['next-token prediction', { ...settings, exact: true, lengthNormalization: true, beta: 2 }],
]

const run = (microBatch: MicroBatch<Variant>, gradients: boolean, parameters: typeof weights = weights) =>
  runObjective({ executor, model }, microBatch, { gradients, weights: parameters })

describe.each(cases)('dpo on %s', (_, of) => {
  const prepared = dpo.prepare(batch, at, of)

  it('has the loss and the rewards of its pairs', async () => {
    const results = await run(prepared, true)
    const { nll } = await run(prepared, false)
    const likelihoods = pairLikelihoods(prepared, nll.data as Float32Array)
    const found = likelihoods.map((likelihood, i) => rewards(likelihood, batch.pairs![i].reference!, of.beta))
    const mean = (value: (reward: (typeof found)[number]) => number) =>
      found.reduce((sum, reward) => sum + value(reward), 0) / found.length
    const expected = {
      loss: mean(({ chosen, rejected }) => preferenceLoss(chosen - rejected, of.labelSmoothing)),
      chosen_reward: mean(({ chosen }) => chosen),
      rejected_reward: mean(({ rejected }) => rejected),
      reward_margin: mean(({ chosen, rejected }) => chosen - rejected),
      reward_accuracy: mean(({ chosen, rejected }) => (chosen > rejected ? 1 : 0)),
    }
    for (const [name, value] of Object.entries(expected))
      expect(Number(results[name].data[0]), name).toBeCloseTo(value, 4)
  })

  it('has the gradients of its loss', () =>
    expectGradients((gradients, moved) => run(prepared, gradients, moved as typeof weights), weights, STEP))
})

// npx tsx scripts/dpo-case.ts CASE.json && python scripts/check_dpo.py CASE.json
const pytorch = {
  bound: {
    ...{ loss: 2.66557963, reward_margin: -0.42531873 },
    'grad.model.embed_tokens.weight': 12.49718941,
    'grad.model.layers.0.self_attn.k_proj.weight': 7.86161453,
    'grad.model.layers.1.mlp.down_proj.weight': 2.25147018,
    'grad.lm_head.weight': 3.38293044,
  },
  exact: {
    ...{ loss: 1.63687109, reward_margin: -0.62755102 },
    'grad.model.embed_tokens.weight': 11.29337456,
    'grad.model.layers.0.self_attn.k_proj.weight': 5.69396174,
    'grad.model.layers.1.mlp.down_proj.weight': 2.35049218,
    'grad.lm_head.weight': 3.06270125,
  },
}

it.each([
  ['bound', settings],
  ['exact', { ...settings, exact: true }],
] as const)('the %s likelihood gives what PyTorch computes from each answer alone', async (name, of) => {
  const results = await run(dpo.prepare(batch, at, of), true)
  for (const [output, expected] of Object.entries(pytorch[name])) {
    const data = results[output].data as Float32Array
    const found = output.startsWith('grad.') ? Math.sqrt(data.reduce((sum, x) => sum + x * x, 0)) : data[0]
    expect(Math.abs(found / expected - 1), `${output}: ${found}, PyTorch ${expected}`).toBeLessThan(1e-4)
  }
})
