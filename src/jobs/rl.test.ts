// Reinforcement learning on the embedded model: rewards rise, decoding uses the weights as they are trained, and a run that was
// stopped goes on with the same bits.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import type { Batch } from '../data/types.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createPolicyTrainer } from './policy-trainer.ts'
import { tinyModel } from './quickstart.ts'
import { type RlOptions, rl } from './rl.ts'
import { parseRlRecipe, type RlRecipeInput } from './rl-recipe.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-rl-'))
  // The embedded model as one of blocks: what it predicts at masks is not trained, which does not matter here.
  await cp(tinyModel, join(folder, 'blocks'), { recursive: true })
  const path = join(folder, 'blocks', 'config.json')
  const config = { ...JSON.parse(await readFile(path, 'utf8')), mask_token_id: 259, block_size: 8 }
  await writeFile(path, JSON.stringify(config))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const recipe = (name: string, changes: Partial<RlRecipeInput> = {}): RlRecipeInput => ({
  model: join(folder, 'blocks'),
  output_dir: join(folder, name),
  threads: 1,
  data: { tasks: ['add', 'sort'], validation_rows: 4, max_seq_len: 64 },
  train: { steps: 3, lr: 1e-3, seed: 3, eval_steps: 0, save_steps: 0 },
  policy: { questions: 2, group: 3, max_new_tokens: 8, threshold: 0.3 },
  ...changes,
})
const run = (name: string, options: Partial<RlOptions> = {}) => rl({ ...options, recipe: recipe(name) })

const weightsOf = async (model: string): Promise<string> =>
  [...(await load(model)).parameters]
    .map(([name, { data }]) => `${name} ${data.reduce((sum, x, i) => sum + x * ((i % 7) + 1), 0)}`)
    .join()

it('makes answers more probable that are worth more', async () => {
  const { model, parameters, tokenizer } = await load(join(folder, 'blocks'))
  const executor = createExecutor({ threads: 1 })
  const questions = ['reverse(stone)=', 'sort(3121)=', 'The people '].map((text, i) => ({
    id: String(i),
    ids: [...tokenizer.encode(text)],
    // The share of the answer's letters that are e.
    reward: async (answer: string) => [...answer].filter((letter) => letter === 'e').length / 8,
  }))
  const trainer = await createPolicyTrainer(executor, model, parameters, {
    ...{
      seed: 1,
      blockSize: 8,
      maskTokenId: 259,
      hiddenSize: 128,
      clip: 0.2,
      group: 8,
      updates: 1,
      rows: 4,
      length: 64,
    },
    ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    ...{ tokenizer, eosTokenIds: [256], questionsOf: () => questions },
    rollout: { strategy: 'fixed', tokensPerStep: 4, maxNewTokens: 8 },
  })
  const batch = { documentIds: [], bytes: 1 } as unknown as Batch
  const rewards: number[] = []
  for (let step = 0; step < 14; step++) {
    const { loss, metrics } = await trainer.step({
      step,
      batches: [batch],
      blockSize: 8,
      learningRate: 3e-3,
      embeddingNoise: 0,
    })
    expect(loss).toBeCloseTo(1 - Number(metrics.reward), 6)
    if (metrics.ratio !== undefined) expect(Number(metrics.ratio)).toBeCloseTo(1, 1)
    rewards.push(Number(metrics.reward))
  }
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length
  expect(mean(rewards.slice(-4))).toBeGreaterThan(mean(rewards.slice(0, 2)) + 0.2)
  // Answers at temperature 0 are those of the weights as they are now.
  expect((await trainer.evaluate([batch], { blockSize: 8, seed: 0 })).metrics!.reward).toBeGreaterThan(0.3)
  await trainer.dispose()
  await executor.dispose()
})

describe('rl', () => {
  it('goes on after an interruption with the same bits', async () => {
    const whole = await run('whole')
    expect(whole).toMatchObject({ status: 'completed', step: 3 })
    expect(whole.after!.metrics).toHaveProperty('tokens_per_forward')
    const stop = new AbortController()
    const first = await run('parts', {
      signal: stop.signal,
      onEvent: (event) => {
        if (event.type === 'step') stop.abort()
      },
    })
    expect(first).toMatchObject({ status: 'interrupted', step: 1, model: undefined })
    const second = await run('parts', { resume: true })
    expect(second.step).toBe(3)
    expect(await weightsOf(second.model!)).toBe(await weightsOf(whole.model!))
  })

  it.each([
    [{ model: tinyModel }, /is no model of block diffusion/],
    [{ data: { tasks: ['add'], max_seq_len: 60 } }, /data\.max_seq_len: 60 is not a multiple of the block size 8/],
  ] as [Partial<RlRecipeInput>, RegExp][])('refuses what cannot be trained: %j', async (changes, message) => {
    await expect(rl({ recipe: recipe('refused', changes) })).rejects.toThrow(message)
  })

  it.each([
    [
      { policy: { strategy: 'fixed', threshold: 0.5 } },
      /policy\.threshold: has a meaning only with strategy: threshold/,
    ],
    [{ policy: { tokens_per_step: 4 } }, /policy\.tokens_per_step: has a meaning only with strategy: fixed/],
    [{ policy: { group: 1 } }, /policy\.group: expected/],
    [{ data: { tasks: [] } }, /data\.tasks/],
  ] as [Partial<RlRecipeInput>, RegExp][])('names the key that is wrong: %j', (changes, message) => {
    expect(() => parseRlRecipe(recipe('wrong', changes))).toThrow(message)
  })
})
