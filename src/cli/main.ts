// The executable: runs a command, turns signals into an orderly stop, and errors into messages and exit codes.
import { CommanderError } from 'commander'
import { packageVersion } from '../core/versions.ts'
import { createProgram } from './command-line.ts'
import { failureOf } from './errors.ts'
import { exitCodes } from './exit-codes.ts'
import type { Session } from './session.ts'
import { writeText } from './terminal.ts'

const stop = new AbortController()
const session: Session = { signal: stop.signal, exitCode: exitCodes.ok, onStop: 'Stopping; nothing is saved.' }
let stoppedBy: NodeJS.Signals | undefined

function onSignal(signal: NodeJS.Signals): void {
  if (stoppedBy) {
    // Dies by the signal, which shells report as 130 or 143. An exit would first stop the worker in the middle of native
    // code, which aborts the process.
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
    return
  }
  stoppedBy = signal
  process.stderr.write(`\n${session.onStop} Press Ctrl-C again to stop at once.\n`)
  stop.abort()
}
process.on('SIGINT', onSignal)
process.on('SIGTERM', onSignal)
for (const stream of [process.stdout, process.stderr]) {
  // A reader that closed the pipe (`unmask info x | head`) wants no more output: not an error.
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (session.serves) return
    if (error.code === 'EPIPE') process.exit(exitCodes.ok)
    const { message } = failureOf(error)
    if (stream === process.stdout) process.stderr.write(`unmask: the output cannot be written: ${message}\n`)
    process.exit(exitCodes.userError)
  })
}

process.exitCode = await run(process.argv)
// What nobody reads would keep the process.
if (session.serves) setTimeout(() => process.exit(), 1000).unref()

async function run(argv: readonly string[]): Promise<number> {
  try {
    await createProgram(session).parseAsync(argv)
    return session.exitCode
  } catch (error) {
    // Help and version end so, too; commander has printed what there is to say.
    if (error instanceof CommanderError && error.exitCode === 0) return exitCodes.ok
    return report(error, argv.includes('--json'))
  }
}

/** Prints what went wrong and returns the exit code that says so. */
function report(error: unknown, json: boolean): number {
  if (stoppedBy && stop.signal.aborted && isAbort(error)) {
    return stoppedBy === 'SIGTERM' ? exitCodes.terminated : exitCodes.interrupted
  }
  const { message, code } = failureOf(error)
  if (json) process.stdout.write(`${JSON.stringify({ error: { message, code } })}\n`)
  if (code === exitCodes.internal) {
    writeText(process.stderr, `${(error instanceof Error && error.stack) || message}\n`)
    process.stderr.write(
      `\nThis is a defect in unmask ${packageVersion()} (Node ${process.version}); please report it with the lines above and the command.\n`,
    )
  } else if (!(error instanceof CommanderError)) {
    writeText(process.stderr, `unmask: ${message}\n`)
  }
  return code
}

function isAbort(error: unknown): boolean {
  return error === stop.signal.reason || (error instanceof Error && error.name === 'AbortError')
}
