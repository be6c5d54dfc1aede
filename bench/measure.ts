// Medians of alternating runs, peak memory and the JSON lines of a run. Knows nothing of what is measured.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { type Provenance, provenance } from '../src/account/provenance.ts'

/** One measurement; the last three are null without a peer. */
export interface Measurement {
  bench: string
  case: string
  value: number
  unit: string
  peer?: string
  peerValue?: number
  /** Standard error of value, with a peer of value - peerValue; where it is known. */
  error?: number
}

/** The first JSON line of a run: what the lines after it were measured with. */
export interface RunLine {
  run: Provenance
}

/** Prints the first line of a run. `commit` among the versions is that of the sources, where git knows it. */
export function reportRun(command: string, threads: number | undefined): void {
  const run = provenance(command, threads)
  run.versions.commit = commit() ?? 'unknown'
  print({ run } satisfies RunLine)
}

function commit(): string | undefined {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty', '--exclude=*'], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}

/** Prints one JSON line. */
export const print = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

/** Prints the JSON line of a measurement. `ratio` is value / peer_value. */
export function report({ bench, case: label, value, unit, peer, peerValue, error }: Measurement): void {
  print({
    bench,
    case: label,
    value: rounded(value),
    unit,
    peer: peer ?? null,
    peer_value: peerValue === undefined ? null : rounded(peerValue),
    ratio: peerValue === undefined ? null : rounded(value / peerValue),
    error: error === undefined ? undefined : rounded(error),
  })
}

/** Four significant digits: more is noise. */
export const rounded = (value: number): number => Number(value.toPrecision(4))

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('no values to take a median of')
  const sorted = [...values].sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
}

/** What is measured: one call is one run and returns its value. */
export type Contestant = () => Promise<number>

export interface Rounds {
  /** Runs of each contestant whose values are kept. */
  rounds: number
  /** Runs of each contestant before them. */
  warmup: number
  /** Milliseconds of rest before every run, so that the threads of the one before have stopped spinning. */
  rest?: number
}

/** Runs the contestants in turn, each round in another order, and returns each one's median. */
export async function alternate<Name extends string>(
  contestants: Readonly<Record<Name, Contestant>>,
  { rounds, warmup, rest = 300 }: Rounds,
): Promise<Record<Name, number>> {
  const names = Object.keys(contestants) as Name[]
  const values = new Map<Name, number[]>(names.map((name) => [name, []]))
  for (let round = 0; round < warmup + rounds; round++)
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + round) % names.length]
      await new Promise((resolve) => setTimeout(resolve, rest))
      const value = await contestants[name]()
      if (round >= warmup) values.get(name)?.push(value)
    }
  return Object.fromEntries([...values].map(([name, list]) => [name, median(list)])) as Record<Name, number>
}

/** Largest resident set of a process so far in bytes; undefined where the system does not say (other than Linux). */
export function peakMemory(pid: number): number | undefined {
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
    return line ? Number(line[1]) * 1024 : undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** Processes that a process has started and that have not been waited for; none where the system does not say (other than Linux). */
export function childrenOf(pid: number): number[] {
  return tasksOf(pid).flatMap((task) => readProc(`${task}/children`).split(' ').filter(Boolean).map(Number))
}

/** Folders of the threads of a process under /proc; none once it has ended. */
export function tasksOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}`)
  } catch {
    return []
  }
}

/** A file of /proc; nothing once its process has ended. */
export function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
