// unmask report: what a model came from, and what it cost.
import { Command } from 'commander'
import { accountRows } from '../../account/account.ts'
import type { RunCost } from '../../jobs/run-cost.ts'
import type { Context } from '../context.ts'
import { table } from '../format.ts'
import { addRecipeFlags, priceFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'

export function reportCommand(session: Session): Command {
  const command = new Command('report')
    .description('Say what a model came from and what it cost: tokens, operations, time, energy, money and CO2.')
    .argument('<run>', 'folder of a run, a model, an adapter or a checkpoint')
  addRecipeFlags(command, ({ section }) => section === 'cost')
  return command
    .addHelpText(
      'after',
      `
Prices are those of the recipes; flags replace them. Energy that the machine did not report is estimated from --watts.

Examples:
  $ unmask report runs/quickstart
  $ unmask report runs/tuned/model --price-per-kwh 0.25 --currency EUR --json`,
    )
    .action(
      action(session, async (context) => {
        const { runCost } = await import('../../jobs/run-cost.ts')
        const result = await runCost(command.args[0]!, priceFlags(command.opts()))
        context.result(result, () => describe(result, context))
      }),
    )
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
