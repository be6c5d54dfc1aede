// The executable: runs a command, turns signals into an orderly stop, and errors into messages and exit codes.
import { CommanderError } from 'commander'
import { TrainingDiverged } from '../train/loop.ts'
import { UserError } from '../types.ts'
import { packageVersion } from '../versions.ts'
import { exitCodes } from './exit-codes.ts'
import { createProgram } from './program.ts'
import type { Session } from './session.ts'

const stop = new AbortController()
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
  process.stderr.write('\nStopping; what runs is finished or saved. Press Ctrl-C again to stop at once.\n')
  stop.abort()
}
process.on('SIGINT', onSignal)
process.on('SIGTERM', onSignal)
for (const stream of [process.stdout, process.stderr]) {
  // A reader that closed the pipe (`unmask info x | head`) wants no more output: not an error.
  stream.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : exitCodes.internal))
}

process.exitCode = await run(process.argv)

async function run(argv: readonly string[]): Promise<number> {
  const session: Session = { signal: stop.signal, exitCode: 0 }
  try {
    await createProgram(session).parseAsync(argv)
    return session.exitCode
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage
    return report(error, argv.includes('--json'))
  }
}

/** Prints what went wrong and returns the exit code that says so. */
function report(error: unknown, json: boolean): number {
  if (stoppedBy && stop.signal.aborted && isAbort(error)) {
    return stoppedBy === 'SIGTERM' ? exitCodes.terminated : exitCodes.interrupted
  }
  const message = error instanceof Error ? error.message : String(error)
  const expected = error instanceof UserError
  const code =
    error instanceof TrainingDiverged ? exitCodes.diverged : expected ? exitCodes.userError : exitCodes.internal
  if (json) process.stdout.write(`${JSON.stringify({ error: { message, code } })}\n`)
  if (expected) {
    process.stderr.write(`unmask: ${message}\n`)
  } else {
    process.stderr.write(`${(error instanceof Error && error.stack) || message}\n`)
    process.stderr.write(
      `\nThis is a defect in unmask ${packageVersion()} (Node ${process.version}); please report it with the lines above and the command.\n`,
    )
  }
  return code
}

function isAbort(error: unknown): boolean {
  return error === stop.signal.reason || (error instanceof Error && error.name === 'AbortError')
}
