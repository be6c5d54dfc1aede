// Structured logs on stderr, one JSON object per line, or lines for people on a terminal: never prompts, answers or keys.
import { destination, pino, stdTimeFunctions } from 'pino'
import type { ServeConfig } from './config.ts'

export type Log = Pick<pino.Logger, 'debug' | 'info' | 'warn' | 'error'>

export function createLog(level: ServeConfig['log_level']): Log {
  const options = { level, base: { name: 'unmask' }, timestamp: stdTimeFunctions.isoTime }
  if (!process.stderr.isTTY) return pino(options, destination({ dest: 2, sync: true }))
  return pino(options, { write: (line) => process.stderr.write(`${readableLine(line)}\n`) })
}

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
