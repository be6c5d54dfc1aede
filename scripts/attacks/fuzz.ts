// Damaged files for every parser of bytes from elsewhere: `npx tsx scripts/attacks/fuzz.ts [--count 10000] [--seed 1] [--parser NAME]`.
// A file is read or refused with a UserError, within a second of the processor and with bounded memory; exit code 1 where not.
// File `i` of a seed is always the same: `--from i --count 1` reads it again.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { print, report, reportRun } from '../../bench/measure.ts'
import { startThread } from '../../src/threads/start.ts'
import type { Counts, FuzzData, FuzzMessage } from './fuzz-worker.ts'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10000' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '0' },
    parser: { type: 'string' },
  },
})
const first = Number(values.from)
const to = first + Number(values.count)
/** Longest time of the processor for one file, in ms; then it counts as hung. */
const MOST_MS = 1000
/** Files between two signs of the thread. */
const FILES = 64
/** Time without a sign after which the thread is stopped, in ms: of the processor, and of the clock, as the machine may be busy. */
const PATIENCE_MS = { processor: FILES * MOST_MS, clock: 1_800_000 }
/** How often it is looked at, in ms. */
const LOOK_MS = 5000
const HEAP_MB = 512
/** Bytes in buffers that a file may leave behind. */
const MOST_BYTES = 64 << 20

reportRun(`npx tsx scripts/attacks/fuzz.ts ${process.argv.slice(2).join(' ')}`.trim(), undefined)
const folder = await mkdtemp(join(tmpdir(), 'unmask-fuzz-'))
const totals: Record<string, Counts> = {}
let faults = 0
const fault = (index: number, parser: string, what: string) => {
  faults++
  print({ fault: what, parser, seed: Number(values.seed), index })
}

/** Reads files until the end, or one that ends the thread; where to go on. */
function round(from: number): Promise<number> {
  return new Promise((resolve) => {
    let index = from
    let counts: Record<string, Counts> = {}
    const data: FuzzData = { folder, seed: Number(values.seed), from, to, parser: values.parser, every: FILES }
    const thread = startThread(new URL('./fuzz-worker.ts', import.meta.url), {
      workerData: data,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    })
    const end = async (next: number, what?: string) => {
      clearInterval(timer)
      if (what !== undefined) fault(index, 'thread', what)
      for (const [name, entry] of Object.entries(counts)) add(name, entry)
      await thread.terminate()
      resolve(next)
    }
    let sign = { clock: performance.now(), processor: process.cpuUsage() }
    const timer = setInterval(() => {
      const { user, system } = process.cpuUsage(sign.processor)
      const [processor, clock] = [(user + system) / 1000, performance.now() - sign.clock]
      if (processor > PATIENCE_MS.processor || clock > PATIENCE_MS.clock)
        void end(
          index + FILES,
          `no answer in ${Math.round(clock)} ms, ${Math.round(processor)} ms of the processor, in these ${FILES} files`,
        )
    }, LOOK_MS)
    thread.on('message', (message: FuzzMessage) => {
      sign = { clock: performance.now(), processor: process.cpuUsage() }
      if (message.kind === 'fault') return fault(message.index, message.parser, message.what)
      counts = message.counts
      if (message.kind === 'done') return void end(to)
      index = message.index
    })
    thread.on('error', (error) => end(index + FILES, `the thread ended in these ${FILES} files: ${error.message}`))
  })
}

function add(name: string, { read, refused, slowest, largest }: Counts): void {
  const sum = totals[name] ?? { read: 0, refused: 0, slowest: 0, largest: 0 }
  totals[name] = {
    ...{ read: sum.read + read, refused: sum.refused + refused },
    ...{ slowest: Math.max(sum.slowest, slowest), largest: Math.max(sum.largest, largest) },
  }
}

const since = performance.now()
for (let at = first; at < to; ) at = await round(at)
await rm(folder, { recursive: true })
let files = 0
for (const [name, { read, refused, slowest, largest }] of Object.entries(totals)) {
  files += read + refused
  const line = (what: string, value: number, unit: string) =>
    report({ bench: 'fuzz', case: `${name}: ${what}`, value, unit })
  line('files', read + refused, '')
  line('refused', refused, '')
  line('slowest file', slowest, 'ms')
  line('largest rest in buffers', largest / 2 ** 20, 'MiB')
  if (slowest > MOST_MS) fault(-1, name, `a file took ${Math.round(slowest)} ms of the processor`)
  if (largest > MOST_BYTES) fault(-1, name, `a file left ${largest} bytes in buffers`)
}
report({ bench: 'fuzz', case: 'all: files', value: files, unit: '' })
report({ bench: 'fuzz', case: 'all: faults', value: faults, unit: '' })
report({ bench: 'fuzz', case: 'all: peak memory', value: process.resourceUsage().maxRSS / 1024, unit: 'MiB' })
report({ bench: 'fuzz', case: 'all: time', value: (performance.now() - since) / 1000, unit: 's' })
process.exitCode = faults === 0 ? 0 : 1
