// Structured logs on stderr, one JSON object per line: never prompts, answers or keys.
import pino from 'pino'
import type { ServeConfig } from './config.ts'

export type Log = Pick<pino.Logger, 'debug' | 'info' | 'warn' | 'error'>

export const createLog = (level: ServeConfig['log_level']): Log =>
  pino(
    { level, base: { name: 'unmask' }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: true }),
  )
