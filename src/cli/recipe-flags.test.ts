import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { parseRecipe, recipeSettings } from '../jobs/recipe.ts'
import { recipeFlag } from './flag-names.ts'
import { addRecipeFlags, loadRecipe, sectionFlags } from './recipe-flags.ts'

const folder = mkdtempSync(join(tmpdir(), 'unmask-recipe-'))
afterAll(() => rmSync(folder, { recursive: true }))

const written = (text: string): string => {
  const file = join(folder, `${Math.random().toString(36).slice(2)}.yaml`)
  writeFileSync(file, text)
  return file
}

const flags = (...argv: string[]): Record<string, unknown> => {
  const command = new Command('convert').exitOverride()
  addRecipeFlags(command)
  return command.parse(argv, { from: 'user' }).opts()
}

const recipe = `model: models/tiny
output_dir: runs/a
data:
  train_path: [a.jsonl]
train:
  lr: 2e-3
`

describe('loadRecipe', () => {
  it('reads a file, and flags win', async () => {
    const options = flags(
      '--lr',
      '5e-4',
      '--total-tokens',
      '4M',
      '--schedule',
      '1:10%,32:90%',
      '--no-complementary-masking',
    )
    const { recipe: merged, yaml } = await loadRecipe(written(recipe), options)
    expect(merged.model).toBe('models/tiny')
    expect(merged.train).toMatchObject({ lr: 5e-4, total_tokens: 4_000_000 })
    expect(merged.diffusion).toMatchObject({ schedule: ['1:10%', '32:90%'], complementary_masking: false })
    expect(parse(yaml)).toEqual(JSON.parse(JSON.stringify(merged)))
  })

  it('needs no file', async () => {
    const options = flags(
      '--model',
      'm',
      '--output-dir',
      'o',
      '--train-path',
      'a.jsonl,b/{c,d}.txt',
      '--train-path',
      'e',
      '--columns-text',
      'body',
    )
    const { recipe: merged } = await loadRecipe(undefined, options)
    expect(merged.data).toMatchObject({ train_path: ['a.jsonl', 'b/{c,d}.txt', 'e'], columns: { text: 'body' } })
  })

  it('names the line of the file', async () => {
    const file = written(`${recipe}  lrr: 1\n  seed: none\n`)
    const error = await loadRecipe(file, {}).catch((reason: Error) => reason.message)
    expect(error).toContain(`${file}:7: train.lrr: unknown key; did you mean train.lr?`)
    expect(error).toContain(`${file}:8: train.seed: expected a number, not "none"`)
  })

  it('names the flag where the value came from one', async () => {
    await expect(loadRecipe(written(recipe), flags('--lr', 'fast'))).rejects.toThrow(
      '--lr: expected a number, not "fast"',
    )
    await expect(loadRecipe(undefined, flags('--model', 'm'))).rejects.toThrow(
      '--output-dir (output_dir in a recipe): is required',
    )
  })

  it.each([
    ['a: [1\nb: 2\n', /:2:1: not valid YAML/],
    ['- a\n', /a recipe is a list of "key: value" lines/],
    ['model: !!js/function "x"\n', /not valid YAML/],
    [`a: &a [x, x]\nb: &b [*a, *a]\n${'c: [*b, *b, *b, *b, *b, *b, *b, *b]\n'.repeat(1)}`, /unknown key/],
  ])('refuses %j', async (text, message) => {
    await expect(loadRecipe(written(text), {})).rejects.toThrow(message)
  })

  it('refuses a file that is not there', async () => {
    await expect(loadRecipe(join(folder, 'none.yaml'), {})).rejects.toThrow('none.yaml: cannot be read: no such file')
    await expect(loadRecipe(folder, {})).rejects.toThrow('cannot be read: it is not a regular file')
  })
})

describe('flags', () => {
  it('are distinct and cover every setting', () => {
    const names = recipeSettings().map(({ path }) => recipeFlag(path))
    expect(new Set(names).size).toBe(names.length)
  })

  it('give the decoding settings', () => {
    expect(sectionFlags(flags('--threshold', '0.5'))).toMatchObject({
      decode: { threshold: 0.5, max_new_tokens: 128 },
      eval: { samples: 4 },
    })
    expect(() => sectionFlags(flags('--threshold', '2'))).toThrow('--threshold: expected a number of at most 1, not 2')
  })

  it('leave an empty recipe as it is', () => {
    expect(flags()).toEqual({})
    expect(() => parseRecipe(flags())).toThrow('model: is required')
  })
})

it.each([
  [
    'aliases that multiply',
    [
      'a: &a [x, x]',
      ...Array.from({ length: 30 }, (_, i) => {
        const [of, name] = [i === 0 ? 'a' : `a${i}`, `a${i + 1}`]
        return `${name}: &${name} [${`*${of}, `.repeat(9)}*${of}]`
      }),
    ].join('\n'),
  ],
  ['an alias of itself', 'a: &a [*a]'],
  ['depth', `a: ${'['.repeat(200_000)}`],
  ['depth in keys', '? '.repeat(50_000)],
  ['a tag', 'a: !!js/function x'],
])('a recipe with %s is an error that names the file', async (_, text) => {
  const file = written(text)
  await expect(loadRecipe(file, {})).rejects.toThrow(file)
})
