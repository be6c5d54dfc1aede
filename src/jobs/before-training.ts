// What is checked before a model is fetched and loaded, which may take minutes: the data, and the settings of a run that is to
// go on.
import { checkRows, heldOutShare } from '../data/index.ts'
import { type Stage, scheduleTokens } from '../diffusion/schedule.ts'
import { shownJson } from '../formats/json.ts'
import { jsonDifferences } from '../formats/json-differences.ts'
import { type RunSettings, recordedConfig, runConfig } from '../train/resume.ts'
import { type Recipe, RecipeError } from './recipe.ts'

/**
 * Checks that the data have rows that can be used. Returns the share of `train_path` to hold out, which of few documents is
 * more or less than asked for; 0 where there are other files for that.
 *
 * @throws UserError where they have none, or nothing can be held out.
 */
export async function checkData(data: Recipe['data']): Promise<number> {
  const { validation_path: others, validation_fraction: fraction } = data
  if (!others && fraction === 0)
    throw new RecipeError([
      { path: 'data.validation_fraction', message: '0 holds nothing out: raise it, or name held-out data' },
    ])
  if (others) await checkRows({ paths: others, ...rowOptions(data) })
  return heldOutShare({ paths: trainPaths(data), ...rowOptions(data), validationFraction: others ? 0 : fraction })
}

/** Checks that the training data have rows that can be used, where none of them are held out. */
export const checkPrompts = (data: Recipe['data']): Promise<void> =>
  checkRows({ paths: trainPaths(data), ...rowOptions(data) })

const rowOptions = (data: Recipe['data']) => ({ columns: columnsOf(data), badRows: data.bad_rows })

/** The columns that a recipe names. */
export const columnsOf = ({ columns }: { columns: Readonly<Record<string, string | undefined>> }) =>
  Object.fromEntries(Object.entries(columns).filter(([, name]) => name !== undefined))

/** The training data of a recipe, as `openData` takes them. */
export const trainPaths = ({ train_path }: Pick<Recipe['data'], 'train_path'>) =>
  train_path.map((entry) =>
    typeof entry === 'string' || entry.weight !== undefined
      ? (entry as string | { path: string; weight: number })
      : entry.path,
  )

/** The same without their weights. */
export const filePaths = (paths: Recipe['data']['train_path']): string[] =>
  paths.map((entry) => (typeof entry === 'string' ? entry : entry.path))

/** Throws RecipeError where the newest checkpoint in the folder was trained with other settings. */
export async function checkResumed(folder: string, settings: RunSettings): Promise<void> {
  const recorded = await recordedConfig(folder)
  if (!recorded) return
  const problems = jsonDifferences(inRecipeNames(recorded), inRecipeNames(runConfig(settings)))
    // Its default depends on the model.
    .filter(({ path, b }) => path !== 'adapter.target_modules' || b !== undefined)
    .map(({ path, a, b }) => ({ path, message: `${shownJson(b)}, but the run was started with ${shownJson(a)}` }))
  if (problems.length > 0)
    throw new RecipeError(problems, `${folder}: resume with the same settings, or start a new run in another folder`)
}

/** What `runConfig` makes of the settings of a training, by sections of a recipe. */
interface KeptSettings extends Record<string, unknown> {
  schedule: Stage[]
  seed: number
  accumulation: number
  learningRate: Record<string, unknown>
  optimizer: { micro_batch_size: number }
  max_new_tokens?: number
}

/** The settings that a checkpoint keeps, by their names in a recipe. */
function inRecipeNames(config: Record<string, unknown>): Record<string, unknown> {
  const { schedule, seed, accumulation, learningRate, optimizer, max_new_tokens, embeddingNoise, ...sections } =
    config as KeptSettings
  const rates = Object.entries(learningRate).map(([name, value]) => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    value,
  ])
  return {
    ...sections,
    train: {
      ...{ seed, ...optimizer, ...Object.fromEntries(rates) },
      total_tokens: scheduleTokens(schedule),
      global_batch_size: accumulation * optimizer.micro_batch_size,
    },
    decode: { max_new_tokens },
  }
}
