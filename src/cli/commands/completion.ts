// unmask completion: a script that makes a shell complete commands, flags and names of models.
import { Argument, Command } from 'commander'
import { completionScript, type Shell, shells } from '../completion.ts'
import { action, type Session } from '../session.ts'

export function completionCommand(session: Session): Command {
  return new Command('completion')
    .description('Print a script that makes a shell complete commands, flags and names of models.')
    .addArgument(new Argument('<shell>', 'your shell').choices(shells))
    .addHelpText(
      'after',
      `
Examples:
  $ unmask completion bash >> ~/.bashrc
  $ unmask completion zsh >> ~/.zshrc
  $ unmask completion fish > ~/.config/fish/completions/unmask.fish`,
    )
    .action(
      action(session, async (context, command) => {
        const { shortNames } = await import('../../checkpoint/names.ts')
        const shell = command.args[0] as Shell
        const script = completionScript(command.parent!, shell, Object.keys(shortNames))
        context.result({ shell, script }, () => script)
      }),
    )
}
