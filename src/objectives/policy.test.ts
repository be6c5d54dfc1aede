// Training on rewards: states of a trajectory against decoding itself, the loss against its formula, gradients against finite
// differences.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { expectGradients, runObjective } from '../../test/train/objective.ts'
import { model, packed, weights } from '../../test/train/tiny.ts'
import type { TensorData } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import { complete, createEngine, type Engine } from '../decode/engine.ts'
import type { CommittedToken } from '../decode/index.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { type PolicySettings, policy, trajectoryNoise, UNDECIDED } from './policy.ts'

const MASK = 23
const B = 4
const executor = createExecutor({ threads: 1 })
const engines = new Map<boolean, Engine>()
beforeAll(async () => {
  for (const shift of [false, true])
    engines.set(shift, await createEngine(executor, model, weights(), { maskTokenId: MASK, eosTokenIds: [0], shift }))
})
afterAll(() => executor.dispose())

const settings = (shift: boolean): PolicySettings => ({
  maskTokenId: MASK,
  shift,
  hiddenSize: 16,
  blockSize: B,
  clip: 0.2,
})
const prompt = [3, 7, 1, 9, 2]

/** An answer written at temperature 1, two tokens at a time, as a batch; every token counts. */
async function written(shift: boolean): Promise<Batch> {
  const decided: (CommittedToken & { step: number })[] = []
  await complete(
    engines.get(shift)!.generate(prompt, {
      ...{
        blockSize: B,
        bufferSize: 1,
        strategy: 'fixed',
        tokensPerStep: 2,
        temperature: 1,
        seed: 5,
        maxNewTokens: 11,
      },
    }),
    ({ step, tokens }) => {
      for (const token of tokens) decided.push({ ...token, step })
    },
  )
  const batch = packed(1, [16], { rows: 1, length: 16, blockSize: B })
  const [ids, steps, nll] = [batch.ids.slice(), new Int32Array(16).fill(UNDECIDED), new Float32Array(16)]
  const advantages = new Float32Array(16)
  ids.set(prompt)
  steps.fill(-1, 0, prompt.length)
  for (const { position, token, step, confidence } of decided) {
    ids[position] = token
    steps[position] = step
    nll[position] = -Math.log(confidence)
    advantages[position] = position % 2 === 0 ? 1.5 : -0.5
  }
  const maskable = batch.maskable.map((_, i) => (i < prompt.length ? 0 : 1))
  return { ...batch, ids, maskable, padding: new Uint8Array(16), rollouts: { steps, nll, advantages } }
}

const data = (feeds: Record<string, unknown>, name: string) => Array.from((feeds[name] as TensorData).data, Number)

describe.each([false, true])('the policy objective, token shift %s', (shift) => {
  it('scores every token in the state in which decoding decided it', async () => {
    const batch = await written(shift)
    const prepared = policy.prepare(batch, undefined, settings(shift))
    const nllOf = async (microBatch: typeof prepared) =>
      Array.from(
        (await runObjective({ executor, model }, microBatch, { gradients: false, weights: weights() })).nll!.data,
        Number,
      )
    const labels = prepared.feeds.labels as TensorData
    const masks = { ...labels, data: (labels.data as BigInt64Array).map(() => BigInt(MASK)) }
    const [found, ofMask] = [
      await nllOf(prepared),
      await nllOf({ ...prepared, feeds: { ...prepared.feeds, labels: masks } }),
    ]
    const [used, old] = ['policy_weights', 'old_nll'].map((name) => data(prepared.feeds, name))
    expect(used!.filter((weight) => weight > 0)).toHaveLength(11)
    // Decoding never draws the mask.
    for (const [i, weight] of used!.entries())
      if (weight > 0) expect(found[i]! + Math.log(1 - Math.exp(-ofMask[i]!))).toBeCloseTo(old![i]!, 4)
  })

  it('leaves alone what has moved beyond the limit, and has the gradients of its loss', async () => {
    const batch = await written(shift)
    // Ratios from about 0.5 to 2.
    batch.rollouts!.nll.forEach((_, i, all) => {
      all[i]! += Math.log(2) * Math.sin(i)
    })
    const prepared = policy.prepare(batch, undefined, settings(shift))
    const run = (gradients: boolean, moved = weights()) =>
      runObjective({ executor, model }, prepared, { gradients, weights: moved })
    const [{ nll }, all] = [await run(false), await run(true)]
    const [used, old, advantages] = ['policy_weights', 'old_nll', 'advantages'].map((name) =>
      data(prepared.feeds, name),
    )
    let [loss, clipped] = [0, 0]
    for (const [i, weight] of used!.entries()) {
      if (weight === 0) continue
      const [ratio, advantage] = [Math.exp(old![i]! - Number(nll!.data[i])), advantages![i]!]
      const bounded = Math.min(Math.max(ratio, 0.8), 1.2)
      loss -= Math.min(ratio * advantage, bounded * advantage) / 11
      clipped += Number(advantage > 0 ? ratio > 1.2 : ratio < 0.8) / 11
    }
    expect(clipped).toBeGreaterThan(0.1)
    expect(Number(all.loss!.data[0])).toBeCloseTo(loss, 4)
    expect(Number(all.clipped!.data[0])).toBeCloseTo(clipped, 5)
    if (!shift)
      await expectGradients((gradients, moved) => run(gradients, moved as ReturnType<typeof weights>), weights(), 1e-3)
  })
})

it('a trajectory has a copy for each forward of its longest block, and hides what came later', () => {
  const batch = packed(1, [8], { rows: 1, length: 8, blockSize: 4 })
  const rollouts = {
    // A prompt of one token; two forwards for the first block, three for the second, whose last token was never decided.
    steps: Int32Array.of(-1, 0, 1, 0, 3, 2, 4, UNDECIDED),
    nll: new Float32Array(8),
    advantages: Float32Array.of(0, 1, 1, 1, 1, 1, 1, 0),
  }
  const { copies, masked, unscored } = trajectoryNoise({ ...batch, rollouts }, 4)
  expect(copies).toBe(3)
  const rows = (values: Uint8Array) => [0, 1, 2].map((copy) => [...values.slice(8 * copy, 8 * copy + 8)].join(''))
  expect(rows(masked)).toEqual(['01111111', '00101011', '00000011'])
  expect(rows(unscored!)).toEqual(['10101011', '11010111', '11111101'])
})
