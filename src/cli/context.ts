// What a command needs of the terminal and the process: where results and progress go, and when to stop.
// Results go to stdout, everything else to stderr, so that output can be piped.
import { availableParallelism } from 'node:os'
import type { Command } from 'commander'
import pc from 'picocolors'
import type { Device } from '../core/types.ts'
import { createDisplay, type Display } from './display.ts'
import type { Session } from './session.ts'
import { writeText } from './terminal.ts'

export type Colors = ReturnType<typeof pc.createColors>

export interface Context {
  json: boolean
  quiet: boolean
  /** The command as it was given. */
  commandLine: string
  /** Threads for the executor: --threads, or one per core. */
  threads: number
  /** --device, of a command that has `deviceOption`. */
  device: Device
  /** Aborted by the first SIGINT or SIGTERM. */
  signal: AbortSignal
  /** Says what stopping does from now on: whether something is saved, and how to go on. */
  whenStopped(sentence: string): void
  /** Colours for stdout: none with --json, NO_COLOR or when it is no terminal. */
  colors: Colors
  /** Prints the result of the command: `value` as JSON with --json, else `text`. */
  result(value: unknown, text: () => string): void
  /** Progress on stderr; silent with --quiet. */
  display: Display
}

/** Whether to colour a stream: NO_COLOR and FORCE_COLOR decide first (https://no-color.org), then the terminal. */
export function wantsColor(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv = process.env): boolean {
  if (env.NO_COLOR !== undefined && env.NO_COLOR !== '') return false
  if (env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== '' && env.FORCE_COLOR !== '0') return true
  return stream.isTTY === true && env.TERM !== 'dumb'
}

export interface GlobalFlags {
  json?: boolean
  quiet?: boolean
  threads?: number
  device?: Device
}

export function createContext(command: Command, session: Session): Context {
  const flags = command.optsWithGlobals<GlobalFlags>()
  const json = flags.json ?? false
  const quiet = flags.quiet ?? false
  const display = createDisplay(process.stderr, { quiet, colors: pc.createColors(wantsColor(process.stderr)) })
  return {
    json,
    quiet,
    commandLine: `unmask ${process.argv.slice(2).join(' ')}`,
    threads: flags.threads === undefined || flags.threads === 0 ? availableParallelism() : flags.threads,
    device: flags.device ?? 'cpu',
    signal: session.signal,
    whenStopped(sentence) {
      session.onStop = sentence
    },
    colors: pc.createColors(!json && wantsColor(process.stdout)),
    result(value, text) {
      // A live display would erase what is written below it.
      display.done()
      writeText(process.stdout, `${json ? JSON.stringify(value) : text()}\n`)
    },
    display,
  }
}
