import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { taskRows } from '../tasks/index.ts'
import { convert } from './convert.ts'
import { tinyModel } from './quickstart.ts'
import { sft } from './sft.ts'
import { parseSftRecipe, sftSettings } from './sft-recipe.ts'

const minimal = { model: 'm', output_dir: 'o', data: { train_path: ['a.jsonl'], max_seq_len: 64 } }
const blocks = { model_type: 'llama', mask_token_id: 259, block_size: 16, same_token_labels: false }
const hybrid = { ...blocks, causal_context: true }
const causal = { model_type: 'llama' }

describe('parseSftRecipe', () => {
  it('follows a model of block diffusion', () => {
    const recipe = parseSftRecipe(minimal, blocks)
    expect(recipe).toMatchObject({ objective: 'diffusion', train: { lr: 1e-4 }, data: { turns: 'all' } })
    expect(recipe.diffusion).toMatchObject({
      ...{ block_size: 16, same_token_labels: false, schedule: 'constant', loss_weighting: 'mean' },
      ...{ noise_range_low: 0.3, noise_range_high: 0.8, copies: 2, complementary_masking: true },
      ...{ turns_in_block: 'apart', confidence_beta: 0, supervise_padding: true },
    })
  })

  it('follows the other objectives', () => {
    const { objective, diffusion } = parseSftRecipe(minimal, hybrid)
    expect(objective).toBe('hybrid')
    expect(diffusion).toMatchObject({ block_size: 16, copies: 1 })
    expect(parseSftRecipe({ ...minimal, diffusion: { confidence_beta: 2 } }, hybrid).diffusion.confidence_beta).toBe(2)
    expect(parseSftRecipe(minimal, causal)).toMatchObject({ objective: 'ar', train: { lr: 1e-4 } })
  })

  it('takes what the recipe says', () => {
    const recipe = parseSftRecipe({ ...minimal, train: { lr: 0.01 }, diffusion: { copies: 1, block_size: 8 } }, blocks)
    expect(recipe.train.lr).toBe(0.01)
    expect(recipe.diffusion).toMatchObject({ copies: 1, complementary_masking: false, block_size: 8 })
    expect(parseSftRecipe(recipe, blocks)).toEqual(recipe)
  })

  it.each([
    [{ objective: 'hybrid' }, blocks, /^objective: hybrid, but m is a model of objective diffusion, .*unmask convert$/],
    [{ objective: 'diffusion' }, causal, /^objective: diffusion, but m is a model of objective ar/],
    [{ init: 'random' }, blocks, /^init: random weights cannot be fine-tuned/],
    [{ diffusion: { confidence_beta: 2 } }, causal, /^diffusion: has no meaning with objective: ar/],
    [{ diffusion: { confidence_beta: -1 } }, blocks, /^diffusion\.confidence_beta: expected/],
    [{ diffusion: { confidence_temperature: 0.5 } }, blocks, /^diffusion\.confidence_temperature: .*confidence_beta$/],
    [
      { diffusion: { turns_in_block: 'last' } },
      blocks,
      /^diffusion\.turns_in_block: expected one of apart, first, together/,
    ],
    [{ diffusion: { noise_range_low: 0.9 } }, blocks, /^diffusion\.noise_range_low: .* not 0\.9 to 0\.8$/],
    [
      { diffusion: { turns_in_block: 'first' } },
      hybrid,
      /^diffusion\.turns_in_block: has no meaning with objective: hybrid/,
    ],
    [{ model: undefined }, blocks, /^model: is required/],
  ])('refuses %j', (change, config, message) => {
    expect(() => parseSftRecipe({ ...minimal, ...change }, config)).toThrow(message)
  })
})

it('the settings say the defaults of fine-tuning', () => {
  const defaults = new Map(sftSettings().map(({ path, default: value }) => [path, value]))
  expect(defaults.get('train.lr')).toBe(1e-4)
  expect(defaults.get('diffusion.noise_range_high')).toBe(0.8)
  expect(defaults.get('diffusion.block_size')).toBe("the model's")
  expect(defaults.has('init')).toBe(false)
})

describe('sft', () => {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'unmask-sft-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  const training = {
    train: { total_tokens: 300, global_batch_size: 2, save_steps: 0 },
    eval: { prompts: 1, thresholds: [] },
    decode: { max_new_tokens: 4 },
    threads: 1,
  }

  it('goes on from a model of blocks, with its objective and what its config says', async () => {
    const rows = [...taskRows({ seed: 3, count: 60 })]
    const data = { train_path: [join(folder, 'rows.jsonl')], max_seq_len: 64, validation_tokens: 100 }
    await writeFile(data.train_path[0]!, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
    const diffusion = { block_size: 8, same_token_labels: false, schedule: 'constant' as const }
    const base = join(folder, 'base')
    await convert({
      recipe: { ...training, data, model: tinyModel, output_dir: base, diffusion },
      skipDecoding: true,
    })
    const events: string[] = []
    const result = await sft({
      recipe: {
        ...training,
        data,
        model: join(base, 'model'),
        output_dir: join(folder, 'tuned'),
        diffusion: { confidence_beta: 2, confidence_temperature: 0.5 },
      },
      onEvent: (event) => {
        if (event.type === 'step') events.push(Object.keys(event.metrics).join())
      },
    })
    expect(result.status).toBe('completed')
    expect(events[0]).toContain('entropy')
    // One token at a time such a model says nothing.
    expect(result.baseline).toBeUndefined()
    expect(result.comparison?.ar).toBeUndefined()
    expect(result.comparison?.diffusion).toBeDefined()
    const { model } = await load(result.model!)
    expect(model.config).toMatchObject({ block_size: 8, same_token_labels: false, mask_token_id: 259 })
  })

  it('names what keeps chats from being used', async () => {
    const file = join(folder, 'chats.jsonl')
    const chats = Array.from({ length: 20 }, (_, i) => ({
      messages: [
        { role: 'user', content: `${i}` },
        { role: 'assistant', content: 'b' },
      ],
    }))
    await writeFile(file, chats.map((chat) => `${JSON.stringify(chat)}\n`).join(''))
    const data = { train_path: [file], max_seq_len: 64 }
    const run = sft({ recipe: { ...training, data, model: tinyModel, output_dir: join(folder, 'chats') } })
    await expect(run).rejects.toThrow(/chat template/)
  })
})
