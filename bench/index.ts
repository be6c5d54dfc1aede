// npm run bench -- NAME: runs one benchmark; each prints one JSON line per measurement.
import { availableParallelism } from 'node:os'
import { UserError } from '../src/core/types.ts'
import { reportRun } from './measure.ts'

/** What a benchmark's file exports. */
export interface Benchmark {
  /** What it measures and its flags, as `--help` prints them. */
  usage: string
  run(args: string[]): Promise<void>
}

/** `--threads N` of any benchmark, or what they all take without it. */
function threadsOf(args: readonly string[]): number {
  const at = args.findIndex((arg) => arg === '--threads' || arg.startsWith('--threads='))
  if (at === -1) return availableParallelism()
  return Number(args[at].split('=')[1] ?? args[at + 1])
}

const benchmarks: Record<string, () => Promise<Benchmark>> = {
  train: () => import('./train.ts'),
  adapter: () => import('./adapter.ts'),
  decode: () => import('./decode.ts'),
  moe: () => import('./moe.ts'),
  quantize: () => import('./quantize.ts'),
  accelerate: () => import('./accelerate.ts'),
  constraints: () => import('./constraints.ts'),
  tune: () => import('./tune.ts'),
  moderation: () => import('./moderation.ts'),
  jobs: () => import('./jobs.ts'),
  streams: () => import('./streams.ts'),
  preference: () => import('./preference.ts'),
  memory: () => import('./memory.ts'),
}

const usage = `usage: npm run bench -- NAME [flags]

NAME is one of: ${Object.keys(benchmarks).join(', ')}. "npm run bench -- NAME --help" lists its flags.

The first JSON line, {"run"}, says what was measured with: date, command, versions, machine. Each measurement is one more,
{"bench","case","value","unit","peer","peer_value","ratio"}; the last three are null without a peer. Values are medians of runs that alternate with the peer's. UNMASK_PYTHON=FILE names a Python that has torch
and transformers; without it the peers are left out.
`

const [name, ...args] = process.argv.slice(2)
if (name === undefined || name === '--help' || name === '-h') {
  process.stdout.write(usage)
} else if (!Object.hasOwn(benchmarks, name)) {
  process.stderr.write(`there is no benchmark ${JSON.stringify(name)}\n\n${usage}`)
  process.exitCode = 2
} else {
  const benchmark = await benchmarks[name]()
  if (args.includes('--help') || args.includes('-h')) process.stdout.write(benchmark.usage)
  else {
    try {
      reportRun(['npm run bench --', name, ...args].join(' '), threadsOf(args))
      await benchmark.run(args)
    } catch (error) {
      // Wrong flags are reported without a stack: UserError, and what parseArgs throws.
      if (!(error instanceof UserError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS'))) throw error
      process.stderr.write(`${(error as Error).message}\n`)
      process.exitCode = 2
    }
  }
}
