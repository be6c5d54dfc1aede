import { readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { packaged } from '../checkpoint/names.ts'
import { UserError } from '../core/types.ts'
import { parsePipeline } from './pipeline-recipe.ts'
import {
  acceleratorSchema,
  nearest,
  parseAcceleratorRecipe,
  parseRecipe,
  type RecipeInput,
  recipeSettings,
} from './recipe.ts'
import { parseRlRecipe } from './rl-recipe.ts'
import { parseSuiteRecipe } from './suite-recipe.ts'

const minimal: RecipeInput = { model: 'models/tiny', output_dir: 'runs/a', data: { train_path: ['a.jsonl'] } }

const problems = (value: unknown): string[] => {
  try {
    parseRecipe(value)
  } catch (error) {
    expect(error).toBeInstanceOf(UserError)
    return (error as Error).message.split('\n')
  }
  throw new Error('the recipe was accepted')
}

describe('parseRecipe', () => {
  it('fills in the defaults', () => {
    expect(parseRecipe(minimal)).toMatchObject({
      objective: 'diffusion',
      init: 'pretrained',
      train: { lr: 1e-3, beta1: 0.9 },
      diffusion: { block_size: 32, schedule: 'wsd', shares: { warmup: 0.2, stable: 0.3, decay: 0.5 } },
      decode: { temperature: 0, max_new_tokens: 128 },
    })
  })

  it('accepts what it has produced', () => {
    const recipe = parseRecipe({ ...minimal, diffusion: { schedule: ['1:10%', '32:90%'] } })
    const { shares: _, ...diffusion } = recipe.diffusion
    expect(parseRecipe({ ...recipe, diffusion })).toEqual(recipe)
  })

  it('reads numbers of tokens with a suffix', () => {
    const tokens = (total_tokens: number | string) =>
      parseRecipe({ ...minimal, train: { total_tokens } }).train.total_tokens
    expect([tokens(300_000), tokens('300k'), tokens('1.5M'), tokens('2G')]).toEqual([300_000, 300_000, 1_500_000, 2e9])
  })

  it('takes a single path for a list of one', () => {
    expect(parseRecipe({ ...minimal, data: { train_path: 'a.jsonl' } }).data.train_path).toEqual(['a.jsonl'])
  })

  it.each([
    [{ model: undefined }, 'model: is required'],
    [{ train: { lr: 'fast' } }, 'train.lr: expected a number, not "fast"'],
    [{ train: { lr: 0 } }, 'train.lr: expected a number above 0, not 0'],
    [{ train: { seed: 1.5 } }, 'train.seed: expected a whole number, not 1.5'],
    [
      { train: { total_tokens: '4x' } },
      'train.total_tokens: expected a number of tokens such as 300000, 300k or 4M, not "4x"',
    ],
    [{ objective: 'gan' }, 'objective: expected one of diffusion, ar, hybrid, not "gan"'],
    [{ data: { train_path: [] } }, 'data.train_path: must not be empty'],
    [{ data: 'a.jsonl' }, 'data: expected keys with values, not "a.jsonl"'],
    [
      { diffusion: { complementary_masking: 'yes' } },
      'diffusion.complementary_masking: expected true or false, not "yes"',
    ],
    [{ blocksize: 4 }, 'blocksize: unknown key; did you mean diffusion.block_size?'],
    [{ train: { block_size: 4 } }, 'train.block_size: unknown key; did you mean diffusion.block_size?'],
    [{ train: { xyzzy: 4 } }, 'train.xyzzy: unknown key'],
    [{ train: { micro_batch_size: 3 } }, 'train.global_batch_size: 8 is not a multiple of train.micro_batch_size 3'],
    [{ train: { lr_min: 1 } }, 'train.lr_min: 1 is above train.lr 0.001'],
    [
      { diffusion: { copies: 3, complementary_masking: true } },
      'diffusion.complementary_masking: needs an even diffusion.copies, not 3',
    ],
    [{ diffusion: { block_size: 48 } }, 'diffusion.block_size: 48 does not divide data.max_seq_len 512'],
    [
      { diffusion: { schedule: 'constant', shares: { decay: 1 } } },
      'diffusion.shares: has a meaning only with schedule: wsd',
    ],
    [
      { diffusion: { embedding_noise_sigma: 1 } },
      'diffusion.embedding_noise_sigma: set embedding_noise_sigma and embedding_noise_steps together',
    ],
    [
      { objective: 'ar', diffusion: { copies: 2 } },
      'diffusion: has no meaning with objective: ar; remove this section or the objective',
    ],
  ])('refuses %j', (change, message) => {
    expect(problems({ ...minimal, ...change })).toEqual([message])
  })

  it('refuses a band of mask ratios that is upside down', () => {
    expect(problems({ ...minimal, diffusion: { noise_range_low: 0.9, noise_range_high: 0.2 } })[0]).toContain(
      '0.9 to 0.2',
    )
  })

  it('names every problem at once', () => {
    expect(problems({ train: { lr: -1, oops: 1 } })).toHaveLength(5)
  })

  it('never throws anything but a UserError', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('model', 'data', 'train', 'diffusion', 'x'), fc.anything()),
        (value) => {
          expect(problems({ ...value, output_dir: 3 }).length).toBeGreaterThan(0)
        },
      ),
    )
  })

  it('accepts the recipes of the repository', async () => {
    const folder = packaged('recipes')
    const others = {
      'accelerate.yaml': parseAcceleratorRecipe,
      'rl.yaml': parseRlRecipe,
      'suite.yaml': parseSuiteRecipe,
      'pipeline.yaml': parsePipeline,
    }
    for (const name of readdirSync(folder).filter((file) => file.endsWith('.yaml'))) {
      const check = Object.entries(others).find(([end]) => name.endsWith(end))?.[1] ?? parseRecipe
      const read = async () => check(parse(await readFile(join(folder, name), 'utf8')))
      await expect(read(), name).resolves.toBeDefined()
    }
  })
})

describe('parseAcceleratorRecipe', () => {
  it('fills in defaults, which parse again, and names what is wrong', () => {
    const recipe = parseAcceleratorRecipe({ ...minimal, adapter: { self_generate: '20k' } })
    expect(recipe.adapter).toMatchObject({ rank: 16, block_size: 8, self_generate: 20_000 })
    expect(parseAcceleratorRecipe(recipe)).toEqual(recipe)
    const wrong = (change: object) => () => parseAcceleratorRecipe({ ...minimal, ...change })
    expect(wrong({ adapter: { ranks: 3 } })).toThrow('adapter.ranks: unknown key; did you mean adapter.rank?')
    expect(wrong({ diffusion: {} })).toThrow('unknown key')
    expect(wrong({ adapter: { block_size: 64 }, data: { ...minimal.data, max_seq_len: 32 } })).toThrow('do not fit')
  })
})

describe('recipeSettings', () => {
  it('describes every setting', () => {
    const settings = recipeSettings()
    expect(settings.length).toBeGreaterThan(40)
    for (const { path, description } of recipeSettings(acceleratorSchema)) expect(description, path).not.toBe('')
    for (const { path, description } of settings) expect(description, path).not.toBe('')
    expect(settings.find(({ path }) => path === 'data.template')?.choices).toEqual(['none', 'chat'])
  })
})

describe('nearest', () => {
  it('finds a key that was mistyped, and a key in another section', () => {
    const keys = ['train.lr', 'train.seed', 'diffusion.block_size']
    expect(nearest('train.sed', keys)).toBe('train.seed')
    expect(nearest('data.block_size', keys)).toBe('diffusion.block_size')
    expect(nearest('nothing.alike', keys)).toBeUndefined()
  })
})
