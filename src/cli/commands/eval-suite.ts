// unmask eval suite: a model, and its base beside it, on tasks and texts; every answer kept.
import { Command } from 'commander'
import { summarise, summariseDomain } from '../../eval/suite/summary.ts'
import { recipeSettings } from '../../jobs/recipe.ts'
import type { SuiteEvent, SuiteResult } from '../../jobs/suite.ts'
import { parseSuiteRecipe, suiteSchema } from '../../jobs/suite-recipe.ts'
import type { Context } from '../context.ts'
import { fetchForTraining } from '../fetch.ts'
import { deviceOption, flagsBelow, runFolderOptions } from '../flags.ts'
import { decimals, percent, table } from '../format.ts'
import { countedProgress } from '../progress.ts'
import { addRecipeFlags, mergeRecipe, recipeFile, withOrigins } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import type { TrainingFlags } from '../training-command.ts'

export function evalSuiteCommand(session: Session): Command {
  const settings = recipeSettings(suiteSchema)
  const command = new Command('suite')
    .description('Measure a model and its base on tasks and texts; keep every answer, and a report.')
    .argument('[model]', 'folder, file, Hub repository or pypi:PACKAGE (default: model of the recipe)')
    .option('-r, --recipe <file>', 'YAML file with the settings below; flags win over it')
    .addOption(deviceOption())
  for (const option of runFolderOptions()) command.addOption(option)
  addRecipeFlags(command, ({ path }) => path !== 'model', settings)
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask eval suite runs/quickstart/model --base tiny --tasks add,sort,bias --output-dir runs/suite
  $ unmask eval suite runs/a/model --tasks "gsm8k=gsm8k-test.jsonl?rows=200" --texts "news=news.txt" --output-dir runs/b
  $ unmask eval suite --output-dir runs/b --resume`,
    )
    .action(
      action(session, async (context) => {
        const flags = flagsBelow<TrainingFlags>(command)
        const [model] = command.args
        const given = { ...flags, ...(model === undefined ? {} : { model }) }
        const loaded = await mergeRecipe(await recipeFile(flags), given, settings, parseSuiteRecipe)
        const { suite } = await import('../../jobs/suite.ts')
        context.whenStopped('Stopping; answers so far are kept, and --resume goes on from there.')
        const result = await withOrigins(loaded, () =>
          suite({
            ...{ recipe: loaded.recipe, yaml: loaded.yaml, resume: flags.resume, force: flags.force },
            command: `unmask ${process.argv.slice(2).join(' ')}`,
            ...{ device: context.device, signal: context.signal, onEvent: suiteDisplay(context) },
            fetch: (source) => fetchForTraining(context, source),
          }),
        )
        context.display.done()
        const { created, command: repeats, versions, machine } = result.run
        const run = { created, command: repeats, versions, machine }
        context.result({ run, files: result.files, comparisons: result.comparisons, ...figuresOf(result) }, () =>
          describe(result, context),
        )
      }),
    )
}

function suiteDisplay({ display, whenStopped }: Context): (event: SuiteEvent) => void {
  const show = countedProgress(display)
  return (event) => {
    if (event.type === 'phase') {
      display.line(event.message)
      return
    }
    whenStopped('Stopping; answers so far are kept, and --resume goes on from there.')
    const { task, done, total, secondsLeft } = event
    show({ what: task, done, total, unit: 'answers', secondsLeft })
  }
}

/** The figures of a run without its answers, for --json. */
function figuresOf({ run, base }: SuiteResult) {
  const of = ({ tasks, domains }: SuiteResult['run']) => ({
    tasks: tasks.map((task) => ({
      ...{ name: task.name, settings: task.settings },
      conditions: task.conditions.map((condition) => summarise(task, condition)),
    })),
    domains: domains.map(summariseDomain),
  })
  return { model: of(run), ...(base ? { base: of(base) } : {}) }
}

function describe(result: SuiteResult, { colors }: Pick<Context, 'colors'>): string {
  const { model, base } = figuresOf(result)
  const parts: string[] = []
  if (model.tasks.length > 0)
    parts.push(
      table([
        [
          'task',
          'metric',
          'rows',
          ...(base ? ['base'] : []),
          'model',
          ...(base ? ['base tokens/s'] : []),
          'tokens/s',
          'TPF',
        ],
        ...model.tasks.flatMap(({ name, conditions }, i) =>
          conditions.map((own) => {
            const other = base?.tasks[i]?.conditions.find((each) => each.name === own.name)
            return [
              own.name === 'plain' ? name : `${name}, ${own.name}`,
              own.scores[0]?.metric ?? '',
              String(own.rows),
              ...(base ? [percent(other?.scores[0]?.score.value)] : []),
              percent(own.scores[0]?.score.value),
              ...(base ? [decimals(other?.speed?.aggregate, 1)] : []),
              decimals(own.speed?.aggregate, 1),
              decimals(own.speed?.tokensPerForward, 2),
            ]
          }),
        ),
      ]),
      model.tasks
        .map(
          ({ name, settings }) =>
            `${name}: ${Object.entries(settings)
              .map(([key, value]) => `${key} ${value}`)
              .join('; ')}`,
        )
        .join('\n'),
    )
  if (model.domains.length > 0)
    parts.push(
      table([
        ['text', ...(base ? ['base bits/byte'] : []), 'bits/byte', '±', 'ECE'],
        ...model.domains.map((own, i) => [
          own.name,
          ...(base ? [decimals(base.domains[i]?.bitsPerByte, 3)] : []),
          decimals(own.bitsPerByte, 3),
          decimals(own.stderr, 3),
          percent(own.calibration),
        ]),
      ]),
    )
  if (result.comparisons)
    parts.push(
      [...result.comparisons.comparisons.map(({ sentence }) => sentence), result.comparisons.verdict].join('\n'),
    )
  parts.push(`${colors.bold('report')} ${result.files.at(-1)}`)
  return parts.join('\n\n')
}
