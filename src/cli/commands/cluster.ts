// unmask cluster: training on many GPUs.
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { type Scheduler, schedulers } from '../../cluster/render.ts'
import { type ClusterSettings, clusterSchema } from '../../cluster/settings.ts'
import { UserError } from '../../core/types.ts'
import { recipeSettings } from '../../jobs/recipe.ts'
import type { Context } from '../context.ts'
import { mandatory } from '../flags.ts'
import { readRecipeFile } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { clusterPlanCommand } from './cluster-plan.ts'

export function clusterCommand(session: Session): Command {
  return new Command('cluster')
    .description(
      'Train on many GPUs: plan what it takes, render the file of a scheduler, run one machine. Each has a --help of its own.',
    )
    .addCommand(clusterPlanCommand(session))
    .addCommand(renderCommand(session))
    .addCommand(runCommand(session))
    .addHelpText(
      'after',
      `
Examples:
  $ unmask cluster plan llada2-flash --gpus H100:64 --tokens 100G --expert-parallel 8
  $ unmask cluster render cluster.yaml --to slurm > job.sbatch
  $ unmask cluster run cluster.yaml`,
    )
}

const settingsHelp = `The YAML file:
${recipeSettings(clusterSchema)
  .map(({ path, description }) => `  ${path}: ${description}`)
  .join('\n')}`

function renderCommand(session: Session): Command {
  return new Command('render')
    .description('Print the file of a scheduler that starts a training on all machines.')
    .argument('<file>', 'YAML file that says what is run, and on which machines')
    .addOption(mandatory(new Option('--to <scheduler>', 'which scheduler').choices(schedulers)))
    .addHelpText(
      'after',
      `\n${settingsHelp}\n\nExamples:\n  $ unmask cluster render cluster.yaml --to slurm > job.sbatch`,
    )
    .action(
      action(session, async (context, command) => {
        const [path] = command.args as [string]
        const { to } = command.opts<{ to: Scheduler }>()
        const { fileInFolder, render } = await import('../../cluster/render.ts')
        const settings = await settingsOf(path)
        const text = render(to, settings, fileInFolder(path, settings.folder))
        context.result({ scheduler: to, text }, () => text.trimEnd())
      }),
    )
}

function runCommand(session: Session): Command {
  return new Command('run')
    .description('Run the part of this machine: the first trains, the others lend it their GPUs.')
    .argument('<file>', 'YAML file that says what is run, and on which machines')
    .addHelpText('after', `\n${settingsHelp}\n\nExamples:\n  $ unmask cluster run cluster.yaml`)
    .action(action(session, (context, command) => runHere(context, command.args[0]!)))
}

async function settingsOf(path: string): Promise<ClusterSettings> {
  const { parseCluster } = await import('../../cluster/settings.ts')
  return parseCluster((await readRecipeFile(path)).value, path)
}

async function runHere({ signal }: Context, path: string): Promise<number> {
  const settings = await settingsOf(path)
  const { runMachine } = await import('../../cluster/run.ts')
  const { value } = await readRecipeFile(join(settings.folder, settings.recipe))
  const { output_dir: outputDir } = value as { output_dir?: unknown }
  if (typeof outputDir !== 'string') throw new UserError(`${settings.recipe}: output_dir: is required`)
  return runMachine(settings, { unmask: [process.execPath, ...process.execArgv, process.argv[1]!], outputDir, signal })
}
