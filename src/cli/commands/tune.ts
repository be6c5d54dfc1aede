// unmask tune: how a model decodes best on this machine.
import { Command, Option } from 'commander'
import { type StrategyName, strategyNames } from '../../decode/index.ts'
import type { TuneEvent, TuneResult } from '../../jobs/tune.ts'
import type { Context } from '../context.ts'
import { UsageError } from '../errors.ts'
import { fetchModel } from '../fetch.ts'
import { deviceOption, numberList, refuseUnread, wholeNumber } from '../flags.ts'
import { decimals, percent, table } from '../format.ts'
import { countedProgress } from '../progress.ts'
import { addRecipeFlags, sectionFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  base?: string
  data?: string[]
  blockSizes?: string
  bufferSizes?: string
  strategies?: string
  reuse?: boolean
  verify?: string
  calibrate?: boolean
  tolerance?: string
  template?: 'none' | 'chat'
  seed?: string
  write?: boolean
  force?: boolean
  all?: boolean
}

export function tuneCommand(session: Session): Command {
  const command = new Command('tune')
    .description(
      'Find how a diffusion model decodes best on this machine: block size, strategy, threshold, buffer; after objective hybrid how many masks, and whether earlier text drafts too.',
    )
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .option(
      '--base <model>',
      'the autoregressive model that it came from: its score is to be kept, its speed to be beaten',
    )
    .option('--data <paths...>', 'held-out text for prompts, where there are no --tasks')
    .option('--block-sizes <list>', "block sizes to try (default: half, once and twice the model's own)")
    .option('--buffer-sizes <list>', 'neighbouring blocks that are refined at a time, to try (default: 1,2)')
    .option(
      '--strategies <list>',
      `strategies to try, of ${strategyNames.join(', ')} (default: threshold,hierarchy,factor)`,
    )
    .option('--reuse', 'also try keeping the keys and values of committed tokens within a block')
    .option('--verify <list>', 'also try self-verification from these numbers of expected tokens on, such as 2,4')
    .option('--calibrate', 'first find the factor on the logits at which a confidence is the share of right tokens')
    .option('--tolerance <points>', 'how far the score may be below the base, in points (default: 1)')
    .addOption(
      new Option('--template <template>', 'how prompts are written (default: as the model was trained)').choices([
        'none',
        'chat',
      ]),
    )
    .addOption(deviceOption())
    .option('--seed <number>', 'seed of the task rows (default: 0)')
    .option('--write', "put the choice into the model's generation_config.json, where generate and serve find it")
    .option('--force', 'with --write: replace settings that are there already')
    .option('--all', 'print all rows, not only the best trade-offs')
  addRecipeFlags(command, ({ path }) =>
    ['eval.tasks', 'eval.task_rows', 'eval.prompts', 'decode.max_new_tokens'].includes(path),
  )
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask tune runs/blocks/model --base models/tiny --tasks add,sort,reverse,count --write
  $ unmask tune runs/mine/model --data held-out.jsonl --block-sizes 8,16,32 --json`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const { checkTunable, tune, wayName, writeTuned } = await import('../../jobs/tune.ts')
        const { decode, eval: settings } = sectionFlags(command.opts())
        const model = command.args[0]!
        if (!flags.write) refuseUnread(command, ['--force'], 'is for --write')
        if (flags.write) await checkTunable(model, { force: flags.force })
        const seed = wholeNumber('--seed', flags.seed, 0)
        const [tolerance] = numberList('--tolerance', flags.tolerance, { least: 0, whole: false }) ?? []
        const blockSizes = numberList('--block-sizes', flags.blockSizes, { least: 1 })
        const bufferSizes = numberList('--buffer-sizes', flags.bufferSizes, { least: 1 })
        const selfVerify = numberList('--verify', flags.verify, { least: 0, whole: false })
        const strategies = flags.strategies?.split(',').map(strategyName)
        for (const source of [model, ...(flags.base ? [flags.base] : [])]) await fetchModel(context, source)
        const result = await tune({
          model,
          base: flags.base,
          data: flags.data,
          template: flags.template,
          reuse: flags.reuse,
          blockSizes,
          bufferSizes,
          selfVerify,
          ...(flags.calibrate ? { calibrate: true } : {}),
          strategies,
          seed,
          ...(tolerance === undefined ? {} : { tolerance: tolerance / 100 }),
          eval: settings,
          maxNewTokens: decode.max_new_tokens,
          threads: context.threads,
          device: context.device,
          signal: context.signal,
          onEvent: tuneDisplay(context),
        })
        context.display.done()
        const chosen = result.rows[result.chosen]!.settings
        const written = flags.write ? await writeTuned(model, chosen) : undefined
        context.result({ ...result, written }, () =>
          describe(result, { all: flags.all ?? false, written, wayName, context }),
        )
      }),
    )
}

/** Shows the events of tuning on the display. */
export function tuneDisplay({ display }: Pick<Context, 'display'>): (event: TuneEvent) => void {
  const show = countedProgress(display)
  return (event) => {
    if (event.type === 'phase') display.line(event.message)
    else show({ what: 'decoding', unit: 'generations', ...event })
  }
}

function describe(
  { forwards, calibration, base, rows, front, aup, chosen, keepsScore }: TuneResult,
  options: {
    all: boolean
    written: string | undefined
    wayName: (settings: TuneResult['rows'][number]['settings']) => string
    context: Context
  },
): string {
  const { colors } = options.context
  const shown = options.all || front.length === 0 ? rows.map((_, i) => i) : front
  const cells = ({ score, tokensPerForward, tokensPerSecond }: NonNullable<TuneResult['base']>) => [
    percent(score?.accuracy),
    decimals(tokensPerForward, 2),
    decimals(tokensPerSecond, 0),
  ]
  const lines = [
    ['', 'score', 'TPF', 'TPS', 'of AR'],
    ...(base ? [['AR base', ...cells(base), '1.00']] : []),
    ...shown.map((i) => [
      `${options.wayName(rows[i]!.settings)}${i === chosen ? ' *' : ''}`,
      ...cells(rows[i]!),
      decimals(rows[i]!.speedup, 2),
    ]),
  ]
  const parts = [
    colors.bold('forwards'),
    table([['rows', 'ms'], ...forwards.map(({ rows, milliseconds }) => [String(rows), decimals(milliseconds, 2)])]),
    ...(calibration ? [calibrated(calibration)] : []),
    colors.bold(
      options.all || front.length === 0
        ? 'ways of decoding'
        : 'best trade-offs: no other way is faster at the same score',
    ),
    table(lines),
  ]
  if (aup.length > 0) {
    const best = [...aup].sort((a, b) => b.aup - a.aup)
    parts.push(
      colors.bold('accuracy under parallelism (AUP) over the thresholds'),
      table([
        ['', 'AUP'],
        ...best.map(({ strategy, blockSize, bufferSize, aup }) => [
          `${strategy}, block ${blockSize}, buffer ${bufferSize}`,
          decimals(aup, 1),
        ]),
      ]),
    )
  }
  parts.push(
    `* chosen: ${options.wayName(rows[chosen]!.settings)}${options.written ? `; written to ${options.written}` : ''}`,
  )
  if (keepsScore === false)
    parts.push('no way keeps the score of the base: this one has the best score, and is the fastest of those')
  return parts.join('\n')
}

const calibrated = ({ scale, tokens, nll, ece }: NonNullable<TuneResult['calibration']>): string =>
  `confidences: factor ${decimals(scale, 3)}, from ${tokens} tokens; calibration error ${percent(ece.raw)} -> ${percent(ece.calibrated)}, ${decimals(nll.raw, 3)} -> ${decimals(nll.calibrated, 3)} nats/token`

function strategyName(name: string): StrategyName {
  const known = strategyNames.find((one) => one === name.trim())
  if (!known) throw new UsageError(`--strategies: there is no ${name.trim()}; there are ${strategyNames.join(', ')}`)
  return known
}
