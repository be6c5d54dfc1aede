// The embedded example: converts the tiny model that comes with unmask on data that comes with it.
// It knows where those stand in the package, and nothing that a user's own recipe could not say.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import { makeFolder } from '../checkpoint/file.ts'
import { packaged, tinyModel } from '../checkpoint/names.ts'
import { mixture, readTexts, writeJsonl } from '../data/synthetic.ts'
import { type RunFolderOptions, runRecipePath, withRunFolder } from '../train/run-folder.ts'
import { type ConvertEvent, type ConvertResult, convertInFolder } from './convert.ts'
import { type QuickstartObjective, quickstartRecipes } from './quickstart-recipes.ts'
import { parseRecipe, type RecipeInput } from './recipe.ts'

export { tinyModel } from '../checkpoint/names.ts'

export interface QuickstartOptions extends RunFolderOptions {
  /** Folder of the run. Default `runs/quickstart`. */
  outputDir?: string
  /**
   * `hybrid`: the model drafts at masks and checks itself; `diffusion`: it denoises blocks, and fills gaps. Default `hybrid`.
   */
  objective?: QuickstartObjective
  /** Training tokens; default those of the recipe. */
  totalTokens?: number
  /** Train once more, from random weights, for this many times the tokens; the report compares. Default 0: not. */
  fromRandom?: number
  threads?: number
  command?: string
  signal?: AbortSignal
  onEvent?: (event: ConvertEvent) => void
}

/** The recipe of the quickstart, with its data and output in `outputDir`; of a run to resume, the recipe that it keeps. */
export async function quickstartRecipe(options: QuickstartOptions = {}): Promise<RecipeInput> {
  const { outputDir = join('runs', 'quickstart'), objective = 'hybrid', totalTokens } = options
  const { fromRandom, threads, resume } = options
  const file = resume ? runRecipePath(outputDir) : packaged('recipes', quickstartRecipes[objective])
  const recipe = parse(await readFile(file, 'utf8')) as RecipeInput
  return {
    ...recipe,
    model: tinyModel,
    output_dir: outputDir,
    threads,
    data: {
      ...recipe.data,
      train_path: [join(outputDir, 'data', 'train.jsonl')],
      validation_path: [join(outputDir, 'data', 'validation.jsonl')],
    },
    train: { ...recipe.train, total_tokens: totalTokens ?? recipe.train?.total_tokens },
    eval: { ...recipe.eval, from_random: fromRandom ?? recipe.eval?.from_random },
  }
}

/** Writes the data of the recipe: seeded task rows mixed with the speeches that stand beside the tiny model. */
export async function writeQuickstartData(outputDir: string): Promise<void> {
  const folder = join(outputDir, 'data')
  const texts = async (name: string) => {
    const file = join(tinyModel, 'data', name)
    return readTexts(await readFile(file, 'utf8'), file)
  }
  await makeFolder(folder)
  const held = await texts('speeches.test.jsonl')
  await writeJsonl(
    join(folder, 'train.jsonl'),
    mixture({ seed: 2, taskRows: 80_000, textRows: 1600, texts: await texts('speeches.train.jsonl') }),
  )
  await writeJsonl(
    join(folder, 'validation.jsonl'),
    mixture({ seed: 1, split: 'test', taskRows: 400, textRows: held.length, texts: held }),
  )
}

/**
 * Converts the embedded model, measures it against its base and writes the report. Throws UserError where the folder holds
 * another run, or none to resume.
 */
export async function quickstart(options: QuickstartOptions = {}): Promise<ConvertResult> {
  const { outputDir = join('runs', 'quickstart'), onEvent } = options
  return withRunFolder(outputDir, options, async () => {
    onEvent?.({ type: 'phase', message: 'writing the data' })
    await writeQuickstartData(outputDir)
    const recipe = parseRecipe(await quickstartRecipe(options))
    return convertInFolder(recipe, { ...options, command: options.command ?? 'unmask quickstart' })
  })
}
