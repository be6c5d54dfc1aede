// unmask eval: likelihood of held-out text, task scores, tokens per forward and per second.
import { Command, Option } from 'commander'
import type { EvaluateResult } from '../../jobs/evaluate.ts'
import type { Context } from '../context.ts'
import { fetchModel } from '../fetch.ts'
import { deviceOption, wholeNumber } from '../flags.ts'
import { decimals, percent, table } from '../format.ts'
import { addRecipeFlags, sectionFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { bitsPerByte } from '../training-display.ts'
import { convertDisplay } from './convert.ts'
import { evalCompareCommand } from './eval-compare.ts'
import { evalSuiteCommand } from './eval-suite.ts'

interface Flags {
  base?: string
  adapter?: string
  data?: string[]
  dataTokens?: string
  blockSize?: string
  template?: 'none' | 'chat'
  seed?: string
}

export function evalCommand(session: Session): Command {
  const command = new Command('eval')
    .description('Measure a model: likelihood of held-out text, task scores, tokens per forward and per second.')
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .option('--base <model>', 'the autoregressive model it came from, measured on the same text and prompts')
    .option(
      '--adapter <folder>',
      'an adapter that drafts for the model, measured beside the model alone; see accelerate',
    )
    .option('--data <paths...>', 'held-out text: files, folders or globs')
    .option('--data-tokens <number>', 'most tokens of held-out text (default: 16384)')
    .option('--block-size <number>', "tokens denoised together (default: the model's)")
    .addOption(
      new Option('--template <template>', 'how prompts are written (default: as the model was trained)').choices([
        'none',
        'chat',
      ]),
    )
    .addOption(deviceOption())
    .option('--seed <number>', 'seed of noise and task rows (default: 0)')
  addRecipeFlags(
    command,
    ({ section, path }) => section === 'decode' || (section === 'eval' && path !== 'eval.from_random'),
  )
  command.addCommand(evalSuiteCommand(session)).addCommand(evalCompareCommand(session))
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask eval runs/quickstart/model --base models/tiny --tasks add,sort
  $ unmask eval runs/a/model --data held-out.jsonl --thresholds 0.8,0.95 --json`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const { evaluate } = await import('../../jobs/evaluate.ts')
        const dataTokens = wholeNumber('--data-tokens', flags.dataTokens)
        const blockSize = wholeNumber('--block-size', flags.blockSize)
        const seed = wholeNumber('--seed', flags.seed, 0)
        const sections = sectionFlags(command.opts())
        for (const model of [command.args[0]!, ...(flags.base ? [flags.base] : [])]) await fetchModel(context, model)
        const result = await evaluate({
          model: command.args[0]!,
          base: flags.base,
          adapter: flags.adapter,
          data: flags.data,
          dataTokens,
          blockSize,
          template: flags.template,
          seed,
          ...sections,
          threads: context.threads,
          device: context.device,
          signal: context.signal,
          onEvent: convertDisplay(context),
        })
        context.display.done()
        context.result(result, () => describe(result, context))
      }),
    )
}

function describe({ mode, blockSize, likelihood, baseline, comparison }: EvaluateResult, { colors }: Context): string {
  const parts: string[] = []
  if (likelihood) {
    const kind = mode !== 'diffusion' ? 'likelihood' : `NELBO, block size ${blockSize}`
    const base = baseline ? `; AR base ${decimals(baseline.bitsPerByte, 4)} bits/byte` : ''
    parts.push(
      `${colors.bold('held-out text')} (${kind}): ${decimals(likelihood.nll, 4)} nats/token, ${bitsPerByte(likelihood, 4)}${base}`,
    )
  }
  if (comparison) {
    const { ar, own, diffusion, sweep, tasks, equal } = comparison
    const second = mode
    const rows = [
      ...(ar ? [{ name: own ? 'AR base' : 'AR', ...ar }] : []),
      ...(own ? [{ name: 'AR mode', ...own }] : []),
    ]
    if (sweep.length > 0)
      rows.push(
        ...sweep.map((point) => ({
          name: point.threshold === 1 && mode === 'speculative' ? 'speculative' : `threshold ${point.threshold}`,
          ...point,
        })),
      )
    else if (diffusion) rows.push({ name: second, ...diffusion })
    parts.push(
      table([
        ['decoding', 'score', 'tokens/forward', 'tokens/s'],
        ...rows.map((row) => [
          row.name,
          percent(row.score?.accuracy),
          decimals(row.tokensPerForward, 2),
          decimals(row.tokensPerSecond, 1),
        ]),
      ]),
    )
    if (mode === 'speculative' && equal !== undefined) {
      parts.push(`${equal} of ${comparison.prompts} answers are the same tokens`)
    }
    if (tasks.length > 0) {
      parts.push(
        table([
          ['task', 'AR', second],
          ...tasks.map((task) => [task.task, percent(task.ar?.accuracy), percent(task.diffusion?.accuracy)]),
        ]),
      )
    }
  }
  return parts.join('\n\n')
}
