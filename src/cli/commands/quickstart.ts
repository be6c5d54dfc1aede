// unmask quickstart: the whole path on the embedded tiny model, in minutes.
import { Command, Option } from 'commander'
import { type QuickstartObjective, quickstartObjectives } from '../../jobs/quickstart-recipes.ts'
import type { Context } from '../context.ts'
import { UsageError } from '../errors.ts'
import { exitCodes } from '../exit-codes.ts'
import { runFolderOptions } from '../flags.ts'
import { decimals } from '../format.ts'
import { showWriting } from '../generation.ts'
import { action, type Session } from '../session.ts'
import { convertDisplay, describeConversion } from './convert.ts'

interface Flags {
  outputDir: string
  objective: QuickstartObjective
  totalTokens?: string
  fromRandom?: string | true
  resume?: boolean
  force?: boolean
}

export function quickstartCommand(session: Session): Command {
  const command = new Command('quickstart')
    .description('Convert the embedded tiny model, watch blocks being unmasked, and write the report.')
    .option('-o, --output-dir <folder>', 'folder of the run', 'runs/quickstart')
    .addOption(
      new Option(
        '--objective <objective>',
        'hybrid: the model drafts at masks and checks itself; diffusion: it denoises blocks, and fills gaps',
      )
        .choices(quickstartObjectives)
        .default(quickstartObjectives[0]),
    )
    .option('--total-tokens <number>', 'training tokens (default: those of the recipe)')
    .option(
      '--from-random [times]',
      'train once more, from random weights, for this many times the tokens (default: 2)',
    )
  for (const option of runFolderOptions()) command.addOption(option)
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask quickstart
  $ unmask quickstart --objective diffusion --output-dir runs/blocks
  $ unmask quickstart --total-tokens 200000 --output-dir runs/short
  $ unmask quickstart --from-random --json`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const totalTokens = positive('--total-tokens', flags.totalTokens)
        const fromRandom = flags.fromRandom === true ? 2 : positive('--from-random', flags.fromRandom)
        const { quickstart } = await import('../../jobs/quickstart.ts')
        const result = await quickstart({
          outputDir: flags.outputDir,
          objective: flags.objective,
          totalTokens,
          fromRandom,
          resume: flags.resume,
          force: flags.force,
          threads: context.threads,
          command: context.commandLine,
          signal: context.signal,
          onEvent: convertDisplay(context),
        })
        context.display.done()
        if (result.model && !context.quiet) await watch(result.model, context)
        context.result(result, () =>
          describeConversion(result, context, `unmask quickstart --output-dir ${flags.outputDir} --resume`),
        )
        if (result.status === 'interrupted') return exitCodes.interrupted
      }),
    )
}

function positive(flag: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  if (Number(value) > 0 && Number.isFinite(Number(value))) return Number(value)
  throw new UsageError(`${flag}: expected a number above 0, not ${JSON.stringify(value)}`)
}

/** Decodes one held-out prompt of each task before the user's eyes. */
async function watch(model: string, context: Context): Promise<void> {
  const { load } = await import('../../checkpoint/load.ts')
  const { createGenerator } = await import('../../text/generator.ts')
  const { promptIds } = await import('../../text/prompt.ts')
  const { createExecutor } = await import('../../runtime/onnxruntime/executor.ts')
  const { TASK_NAMES, taskRow } = await import('../../tasks/index.ts')
  const { display, signal } = context
  const loaded = await load(model, { signal })
  const executor = createExecutor({ threads: context.threads })
  try {
    const generator = await createGenerator(executor, loaded)
    display.line('held-out prompts, forward by forward (░ is masked):')
    for (const task of TASK_NAMES) {
      const { prompt } = taskRow(task, 1, 1000, 'test')
      const ids = promptIds(prompt, loaded)
      const { result } = await showWriting(generator.write(ids, { maxNewTokens: 64, signal }), {
        context,
        generator,
        prompt,
        promptIds: ids,
        show: true,
        pause: display.live ? 150 : 0,
      })
      if (!result) return
      display.line(
        `     ${result.tokens} tokens in ${result.forwards} forwards (${decimals(result.tpf, 1)} per forward)`,
      )
    }
  } finally {
    await executor.dispose()
  }
}
