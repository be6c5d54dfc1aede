// One invocation of the command line: its abort signal, and the exit code that its command leaves behind.
import type { Command } from 'commander'
import { type Context, createContext } from './context.ts'
import { checkRequired } from './flags.ts'

export interface Session {
  signal: AbortSignal
  exitCode: number
  /** What Ctrl-C does at this moment, in a sentence. */
  onStop: string
  /** Whether it works for others than those who read its output: it then neither ends with them nor waits for them. */
  serves?: boolean
}

/**
 * Wraps the body of a command for commander: checks its required flags, gives it a context and ends its progress display.
 * The body returns an exit code, or nothing for success.
 */
export function action(
  session: Session,
  // biome-ignore lint/suspicious/noConfusingVoidType: a body that returns nothing is the common case
  body: (context: Context, command: Command) => Promise<number | void>,
): (...args: unknown[]) => Promise<void> {
  return async (...args) => {
    // commander passes the arguments, the options and, last, the command.
    const command = args.at(-1) as Command
    checkRequired(command)
    const context = createContext(command, session)
    try {
      session.exitCode = (await body(context, command)) ?? 0
    } finally {
      context.display.done()
    }
  }
}
