// Structured logs on stderr, one JSON object per line, or lines for people on a terminal: never prompts, answers or keys.
import { pino, stdTimeFunctions } from 'pino'
import type { ServeConfig } from './config.ts'

export type Log = Pick<pino.Logger, 'debug' | 'info' | 'warn' | 'error'>

/** Bytes that may wait for whoever reads the log: lines beyond them are lost, and counted. */
const MOST_UNREAD = 1 << 20

type Handle = { setBlocking?(blocking: boolean): void } | null | undefined

/** A log that waits for nobody: a reader of stderr that stalls or goes away holds up no request. */
export function createLog(level: ServeConfig['log_level']): Log {
  const { stderr } = process
  if (!stderr.listeners('error').includes(ignore)) stderr.on('error', ignore)
  const options = { level, base: { name: 'unmask' }, timestamp: stdTimeFunctions.isoTime }
  let lost = 0
  const log = pino(options, {
    write(line) {
      if (stderr.writableLength > MOST_UNREAD) {
        lost++
        return
      }
      // Whoever shares stderr may have made writes to it wait: libuv does so for what it starts.
      if (!stderr.isTTY) (stderr as unknown as { _handle?: Handle })._handle?.setBlocking?.(false)
      stderr.write(stderr.isTTY ? `${readableLine(line)}\n` : line)
      if (lost === 0) return
      const lines = lost
      lost = 0
      log.warn({ lines }, 'log lines were lost: nobody read them')
    },
  })
  return log
}

/** Whoever read the log is gone: the server is not. */
const ignore = (): void => {}

const levels: Readonly<Record<number, string>> = { 20: 'debug', 30: 'info', 40: 'warn', 50: 'ERROR' }

/** A line of JSON as people read it: time, level, message, and the rest as key=value. */
export function readableLine(json: string): string {
  const { level, time, name, msg = '', ...rest } = JSON.parse(json) as Record<string, unknown>
  const clock = new Date(String(time)).toTimeString().slice(0, 8)
  const fields = Object.entries(rest).map(
    ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return [clock, (levels[Number(level)] ?? '').padEnd(5), msg, ...fields].join(' ')
}
