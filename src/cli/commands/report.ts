// unmask report: what a model came from, and what it cost.
import { Command } from 'commander'
import { accountRows } from '../../account/account.ts'
import type { CostComparison } from '../../jobs/cost-comparison.ts'
import { recipeSettings, type Setting } from '../../jobs/recipe.ts'
import type { RunCost } from '../../jobs/run-cost.ts'
import type { Context } from '../context.ts'
import { UsageError } from '../errors.ts'
import { recipeFlag } from '../flag-names.ts'
import { refuseUnread } from '../flags.ts'
import { count, decimals, percent, table } from '../format.ts'
import { addRecipeFlags, priceFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'

const isPrice = ({ section }: Setting): boolean => section === 'cost'

export function reportCommand(session: Session): Command {
  const command = new Command('report')
    .description('Say what a model came from and what it cost: tokens, operations, time, energy, money and CO2.')
    .argument('<runs...>', 'folder of a run, a model, an adapter or a checkpoint; with --against runs of several seeds')
    .option(
      '--against <runs...>',
      'as many runs, such as those from random weights: what the same held-out loss cost them',
    )
  addRecipeFlags(command, isPrice)
  return command
    .addHelpText(
      'after',
      `
Prices are those of the recipes; flags replace them. Energy that the machine did not report is estimated from --watts.

Examples:
  $ unmask report runs/quickstart
  $ unmask report runs/a-1 runs/a-2 --against runs/scratch-1 runs/scratch-2
  $ unmask report runs/tuned/model --price-per-kwh 0.25 --currency EUR --json`,
    )
    .action(
      action(session, async (context) => {
        const { against } = command.opts<{ against?: string[] }>()
        if (against) {
          const prices = recipeSettings().filter(isPrice)
          refuseUnread(
            command,
            prices.map(({ path }) => recipeFlag(path)),
            'is not for --against',
          )
          const { compareCosts } = await import('../../jobs/cost-comparison.ts')
          const result = await compareCosts(command.args, against)
          context.result(result, () => compared(result))
          return
        }
        if (command.args.length > 1) throw new UsageError('several runs are for --against; name one')
        const { runCost } = await import('../../jobs/run-cost.ts')
        const result = await runCost(command.args[0]!, priceFlags(command.opts()))
        context.result(result, () => describe(result, context))
      }),
    )
}

/** A table of the pairs, and the ratios of cost. */
function compared({ pairs, ratios }: CostComparison): string {
  const rows = pairs.map(({ run, target, cost, costAgainst, spentAgainst, score, scoreAgainst }) => [
    run,
    decimals(target, 3),
    count(cost.tokens!),
    costAgainst ? count(costAgainst.tokens!) : `not in ${count(spentAgainst.tokens!)}`,
    percent(score),
    percent(scoreAgainst),
  ])
  const ratio = ([name, found]: [string, CostComparison['ratios']['tokens']]) =>
    found
      ? `${name}: ${found.atMost ? 'at most ' : ''}${percent(found.mean)}${found.stderr === undefined ? '' : ` ± ${percent(found.stderr)}`}`
      : `${name}: not measured in all runs`
  return [
    table([['run', 'NELBO', 'tokens', 'tokens of the other', 'score', 'score of the other'], ...rows]),
    '',
    'Cost until the same NELBO, of the other way (mean of the pairs, ± its standard error):',
    ...Object.entries(ratios).map(ratio),
    'Scores are those at the end of each run.',
  ].join('\n')
}

function describe({ path, record, steps, total }: RunCost, { colors }: Context): string {
  const { base, data, license, commit, versions } = record
  const head = [
    ['record', `${path}/provenance.json`],
    ['base', `${base.name}, SHA-256 ${base.sha256.slice(0, 16)}..., licence ${base.license ?? 'not stated'}`],
    ['data', data.map(({ name, sha256 }) => `${name} (SHA-256 ${sha256.slice(0, 16)}...)`).join(', ') || 'none'],
    ['recipe', `SHA-256 ${record.recipe.sha256.slice(0, 16)}...`],
    ['licence', license ?? 'not known'],
    ['made with', `unmask ${versions.unmask}${commit ? `, commit ${commit}` : ''}`],
  ]
  const trained = steps.flatMap(({ method, base, account }) =>
    account ? [{ name: `${method} of ${base}`, account }] : [],
  )
  const columns = [...trained, ...(trained.length > 1 ? [{ name: 'together', account: total }] : [])].map(
    ({ name, account }) => [name, ...accountRows(account).map(([, value]) => value)],
  )
  const rows = ['', ...accountRows(total).map(([name]) => name)].map((name, i) => [
    name,
    ...columns.map((column) => column[i]!),
  ])
  return [
    ...head.map(([name, value]) => `${colors.bold(name!.padEnd(11))}${value}`),
    '',
    table(rows),
    '',
    'Operations: 6 N for each position that was computed (Kaplan et al., 2020, arXiv 2001.08361).',
    ...(total.energy === 'estimated'
      ? [`Energy is estimated from ${total.prices.watts} W where the machine reported none.`]
      : []),
  ].join('\n')
}
