// unmask merge: averages checkpoints of one run into one model, or fuses an adapter into its base.
import { Command, Option } from 'commander'
import { UserError } from '../../core/types.ts'
import { UsageError } from '../errors.ts'
import { mandatory, wholeNumber } from '../flags.ts'
import { action, type Session } from '../session.ts'

export function mergeCommand(session: Session): Command {
  return new Command('merge')
    .description(
      'Average the weights of checkpoints into one model, as LLaDA2 does before post-training; or fuse an adapter into its base.',
    )
    .argument('<checkpoints...>', 'folders of checkpoints; one run folder, with --best; or the folder of one adapter')
    .addOption(mandatory(new Option('-o, --out <folder>', 'folder to write; never one of the checkpoints')))
    .option('--force', 'replace a checkpoint in that folder')
    .option('--best <k>', 'merge the k checkpoints of a run with the lowest NELBO')
    .addOption(
      new Option('--dtype <type>', 'type of the stored weights (default: F32)').choices(['F32', 'F16', 'BF16']),
    )
    .addOption(
      new Option(
        '--bits <bits>',
        'of an adapter: round the matrices to the nearest of so many bits (default: they are not quantised)',
      ).choices(['4', '8']),
    )
    .addHelpText(
      'after',
      `
Examples:
  $ unmask merge runs/tiny --best 3 --out merged
  $ unmask merge runs/a/checkpoints/step-0000100 runs/a/checkpoints/step-0000200 --out merged
  $ unmask merge runs/small/adapter --out merged
  $ unmask merge runs/small/adapter --bits 4 --out merged-4bit`,
    )
    .action(
      action(session, async (context, command) => {
        const { bestCheckpoints, mergeCheckpoints } = await import('../../train/merge.ts')
        const { out, force, best, dtype, bits } = command.opts<{
          out: string
          force?: boolean
          best?: string
          dtype?: 'F32' | 'F16' | 'BF16'
          bits?: '4' | '8'
        }>()
        const { isAdapterFolder } = await import('../../checkpoint/adapted.ts')
        const [first, ...others] = command.args as [string, ...string[]]
        for (const path of others)
          if (await isAdapterFolder(path)) throw new UserError(`${path}: is an adapter, which is merged alone`)
        if (await isAdapterFolder(first)) {
          if (others.length > 0) throw new UserError(`${first}: is an adapter, which is merged alone`)
          if (best !== undefined) throw new UsageError('--best takes a run folder, not an adapter')
          if (bits && dtype) throw new UsageError('--bits and --dtype: a quantised model has no other type; give one')
          const { mergeAdapter } = await import('../../jobs/merge-adapter.ts')
          const numbers = bits ? (Number(bits) as 4 | 8) : undefined
          await mergeAdapter({
            adapter: first,
            out,
            force,
            dtype,
            bits: numbers,
            command: context.commandLine,
            signal: context.signal,
          })
          const stored = numbers ? `${numbers} bits` : (dtype ?? 'F32')
          context.result(
            { out, merged: [first], stored },
            () => `${out}: the base with ${first} fused into it, ${stored}`,
          )
          return
        }
        if (bits)
          throw new UsageError('--bits is for an adapter; quantise the mean of checkpoints with unmask quantize')
        const count = wholeNumber('--best', best)
        if (count === undefined) for (const path of command.args) await refuseRun(path)
        if (count !== undefined && others.length > 0) throw new UsageError('--best takes one run folder')
        const paths = count === undefined ? command.args : await bestCheckpoints(first, count)
        await mergeCheckpoints(paths, out, { dtype, force, command: context.commandLine })
        context.result(
          { out, merged: paths },
          () => `${out}: the mean of ${paths.length} checkpoint${paths.length === 1 ? '' : 's'}`,
        )
      }),
    )
}

/** Throws for the folder of a run, which is no checkpoint itself. */
async function refuseRun(path: string): Promise<void> {
  const { listCheckpoints } = await import('../../train/checkpoint.ts')
  if ((await listCheckpoints(path)).length > 0)
    throw new UserError(
      `${path}: is a run; say with --best how many of its checkpoints, or name them (${path}/checkpoints/...)`,
    )
}
