// unmask pipeline: stages of a recipe, one after the other, to a model and a table of what each did and cost.
import { Command } from 'commander'
import type { PipelineEvent, PipelineResult, StageRow, StageState } from '../../jobs/pipeline.ts'
import { pipelineSettings } from '../../jobs/pipeline-recipe.ts'
import { stageKinds } from '../../jobs/pipeline-stages.ts'
import type { Context } from '../context.ts'
import { exitCodes } from '../exit-codes.ts'
import { count, decimals, duration, percent, table } from '../format.ts'
import { addRecipeFlags, mergeRecipe } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { convertDisplay } from './convert.ts'
import { dpoDisplay } from './dpo.ts'
import { quantizeDisplay } from './quantize.ts'
import { tuneDisplay } from './tune.ts'

export function pipelineCommand(session: Session): Command {
  const settings = pipelineSettings()
  const command = new Command('pipeline')
    .description('Run the stages of a recipe, from a base to a finished model. What is done already is skipped.')
    .argument('<recipe>', 'YAML file with the stages and their settings')
    .option('--dry-run', 'print what each stage would do, and stop')
    .option('--force', 'make stages again that were made with other settings or data; what they made is deleted')
  addRecipeFlags(command, () => true, settings)
  return command
    .addHelpText(
      'after',
      `
Stages:
${Object.entries(stageKinds)
  .map(([name, { description }]) => `  ${name.padEnd(10)}${description}`)
  .join('\n')}

An interrupted pipeline goes on with the same command. A stage takes the model of the last stage before it that made one, or of the one that "from" names.

Examples:
  $ unmask pipeline recipes/tiny-pipeline.yaml --dry-run
  $ unmask pipeline recipes/tiny-pipeline.yaml
  $ unmask pipeline recipes/tiny-pipeline.yaml --seed 2 --output-dir runs/tiny/pipeline-2`,
    )
    .action(
      action(session, async (context) => {
        const { dryRun, force = false } = command.opts<{ dryRun?: boolean; force?: boolean }>()
        const { parsePipeline } = await import('../../jobs/pipeline-recipe.ts')
        const { pipelineStates, runPipeline } = await import('../../jobs/pipeline.ts')
        const given = command.optsWithGlobals()
        const { recipe, origin } = await mergeRecipe(command.args[0], given, settings, (value) => value)
        const plan = await parsePipeline(recipe, origin)
        if (dryRun) {
          const rows = await pipelineStates(plan)
          context.result({ ...plan, stages: rows }, () => planned(rows))
          return
        }
        context.whenStopped('Stopping; stages that are done are kept, and the same command goes on.')
        const result = await runPipeline(plan, {
          ...{ force, command: context.commandLine, signal: context.signal },
          onEvent: pipelineDisplay(context),
        })
        context.display.done()
        context.result(result, () => describe(result, context))
        if (result.status === 'interrupted') return exitCodes.interrupted
      }),
    )
}

const states: Readonly<Record<StageState, string>> = {
  new: 'to run',
  done: 'done already',
  interrupted: 'goes on',
  changed: 'changed: made again with --force',
}

/** The plan: each stage with the settings that are not empty. */
const planned = (rows: readonly StageRow[]): string =>
  table([['stage', 'takes', 'state'], ...rows.map(({ id, from, state }) => [id, from, states[state]])])

/** Shows what the stages report, each as the command of its kind does. */
export function pipelineDisplay(context: Pick<Context, 'display' | 'whenStopped'>): (event: PipelineEvent) => void {
  const show = convertDisplay(context)
  const [quantize, tune, dpo] = [quantizeDisplay(context), tuneDisplay(context), dpoDisplay(context)]
  const { display } = context
  return (event) => {
    switch (event.type) {
      case 'stage':
        display.done()
        display.line(`stage ${event.number} of ${event.total}: ${event.id}, ${states[event.state]}`)
        break
      case 'tensor':
        quantize(event)
        break
      case 'progress':
        tune(event)
        break
      case 'reference':
      case 'pairs':
        dpo(event)
        break
      case 'validation':
        // Held-out pairs have figures of their own.
        if (event.validation.metrics?.reward_margin === undefined) show(event)
        else dpo(event)
        break
      default:
        show(event)
    }
  }
}

function describe({ rows, model, outputDir }: PipelineResult, { colors }: Context): string {
  return [
    table([
      ['stage', '', 'score', 'TPF', 'tokens/s', 'bits/byte', 'training tokens', 'time', 'energy', 'price'],
      ...rows.map((row) => [
        row.id,
        row.state === 'done' ? 'skipped' : '',
        percent(row.score),
        decimals(row.tokensPerForward, 2),
        decimals(row.tokensPerSecond, 0),
        decimals(row.bitsPerByte, 3),
        row.tokens === undefined ? '-' : count(row.tokens),
        row.seconds === undefined ? '-' : duration(row.seconds),
        row.account ? `${count(row.account.joules)} J${row.account.energy === 'estimated' ? ' (estimated)' : ''}` : '-',
        row.account ? `${row.account.cost.toPrecision(2)} ${row.account.currency}` : '-',
      ]),
    ]),
    '',
    ...(model ? [`${colors.bold('model')}  ${model}`] : []),
    `${colors.bold('table')}  ${outputDir}/pipeline.json`,
  ].join('\n')
}
