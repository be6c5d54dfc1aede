// unmask eval compare: whether one run of the suite is worse than another.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import type { SuiteRun } from '../../eval/suite/records.ts'
import { exitCodes } from '../exit-codes.ts'
import { flagsBelow, number, wholeNumber } from '../flags.ts'
import { action, type Session } from '../session.ts'

export function evalCompareCommand(session: Session): Command {
  const command = new Command('compare')
    .description(
      'Compare two runs of eval suite, row by row: paired bootstrap, McNemar’s exact test for right and wrong, Holm’s correction.',
    )
    .argument('<a>', 'a run: its folder (for model.json) or file')
    .argument('<b>', 'the run that is compared with it')
    .option('--margin <points>', 'how much worse a score may be without being a regression', '0')
    .option('--seed <number>', 'seed of the bootstrap (default: 0)')
  return command
    .addHelpText(
      'after',
      `
Exit status ${exitCodes.regression} says that B is worse than A somewhere, by more than chance and the margin.

Examples:
  $ unmask eval compare runs/before runs/after
  $ unmask eval compare runs/suite/base.json runs/suite/model.json --margin 2`,
    )
    .action(
      action(session, async (context) => {
        const flags = flagsBelow<{ margin: string; seed?: string }>(command)
        const margin = number('--margin', flags.margin, { most: 100 })
        const seed = wholeNumber('--seed', flags.seed, 0)
        const { compareRuns } = await import('../../eval/suite/compare.ts')
        const [a, b] = [await readRun(command.args[0]!), await readRun(command.args[1]!)]
        const result = compareRuns(a, b, { margin, seed })
        context.result(result, () =>
          [
            `A: ${a.model.source} (mode ${a.model.mode})   B: ${b.model.source} (mode ${b.model.mode})`,
            ...result.comparisons.map(({ sentence }) => sentence),
            ...result.left.map((each) => `not compared: ${each}`),
            result.verdict,
          ].join('\n'),
        )
        if (result.regressions > 0) return exitCodes.regression
      }),
    )
}

async function readRun(path: string): Promise<SuiteRun> {
  const { readText } = await import('../../checkpoint/file.ts')
  const { parseRun } = await import('../../eval/suite/records.ts')
  const isFolder = await stat(path).then(
    (status) => status.isDirectory(),
    () => false,
  )
  const file = isFolder ? join(path, 'model.json') : path
  return parseRun(file, await readText(file))
}
