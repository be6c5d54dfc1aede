import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { splitOf } from '../tasks/index.ts'
import { quickstart, quickstartRecipe, writeQuickstartData } from './quickstart.ts'
import { quickstartObjectives } from './quickstart-recipes.ts'
import { parseRecipe } from './recipe.ts'

const folder = mkdtempSync(join(tmpdir(), 'unmask-quickstart-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('quickstart', () => {
  it('is the committed recipe with data and output of its own', async () => {
    const recipe = parseRecipe(await quickstartRecipe({ outputDir: folder, totalTokens: 1000, fromRandom: 2 }))
    expect(recipe).toMatchObject({
      output_dir: folder,
      objective: 'hybrid',
      train: { total_tokens: 1000 },
      eval: { from_random: 2 },
    })
    for (const objective of quickstartObjectives)
      expect(parseRecipe(await quickstartRecipe({ objective })).objective).toBe(objective)
    expect(recipe.data.validation_path).toEqual([join(folder, 'data', 'validation.jsonl')])
  })

  it('holds its validation tasks out of training', async () => {
    await writeQuickstartData(folder)
    const prompts = (name: string): string[] =>
      readFileSync(join(folder, 'data', name), 'utf8')
        .split('\n')
        .flatMap((line) => (line.includes('"prompt"') ? [JSON.parse(line).prompt] : []))
    const train = prompts('train.jsonl')
    expect(train.length).toBeGreaterThan(50_000)
    expect(train.every((prompt) => splitOf(prompt) === 'train')).toBe(true)
    expect(prompts('validation.jsonl').every((prompt) => splitOf(prompt) === 'test')).toBe(true)
  })

  it('does not write over a run', async () => {
    mkdirSync(join(folder, 'checkpoints'))
    await expect(quickstart({ outputDir: folder })).rejects.toThrow('holds a run already; resume it with --resume')
  })
})
