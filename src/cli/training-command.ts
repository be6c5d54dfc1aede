// What the commands that train have in common: a model, data and a recipe whose settings are flags.
import { Command } from 'commander'
import type { Setting } from '../jobs/recipe.ts'
import { runFolderOptions } from './flags.ts'
import { addRecipeFlags } from './recipe-flags.ts'

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
