// bench memory: the peak memory of a process that loads a model and writes a text, by model and bits.
import { basename } from 'node:path'
import { parseArgs } from 'node:util'
import { UserError } from '../src/core/types.ts'
import { startOwn } from './child.ts'
import { peakMemory, report } from './measure.ts'

export const usage = `usage: npm run bench -- memory [flags] MODEL...

Loads each model in a process of its own, which writes a text, and prints the peak of the process's memory and the bytes of the
weights. Linux only.

  --max-new-tokens N  of the text (default 256)
  --threads N         threads (default 1)
`

export async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { 'max-new-tokens': { type: 'string', default: '256' }, threads: { type: 'string', default: '1' } },
  })
  if (positionals.length === 0) throw new UserError('name the models to measure')
  for (const model of positionals) {
    const child = await startOwn('./memory-child.ts', [model, values['max-new-tokens'], values.threads])
    const { weightBytes, tokens } = await child.ask<{ weightBytes: number; tokens: number }>('write')
    const line = { bench: 'memory', case: basename(model) }
    report({ ...line, value: weightBytes / 1e6, unit: 'MB of weights' })
    report({ ...line, value: (peakMemory(child.pid) ?? Number.NaN) / 1e6, unit: 'MB of the process' })
    report({ ...line, value: tokens, unit: 'tokens written' })
    await child.close()
  }
}
