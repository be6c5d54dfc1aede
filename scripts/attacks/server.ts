// A server in a process of its own, as an operator runs the build: its log, the processes that it starts, what they use and how
// long they waited for the processor. Linux only.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { childrenOf, readProc, tasksOf } from '../../bench/measure.ts'

export interface LogLine {
  msg?: string
  model?: string
  pid?: number
  [field: string]: unknown
}

export interface AttackedServer {
  url: string
  pid: number
  /** Every line of its log so far, without those of requests. */
  log: LogLine[]
  /** The process that has a model's work now, by the log. */
  modelProcess(model: string): number | undefined
  /** Processes of models, those that start or end among them. */
  children(): number[]
  send(name: NodeJS.Signals): void
  /** Exit code, or the signal that ended it. */
  ended: Promise<number | string>
}

/** Starts `unmask serve` of the build in a folder, by default this one. Rejects where it ends before it serves. */
export async function startAttacked(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  root = fileURLToPath(new URL('../..', import.meta.url)),
): Promise<AttackedServer> {
  const command = join(root, 'bin/unmask.js')
  const child = spawn(process.execPath, [command, 'serve', ...args, '--port', '0', '--json'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const pid = child.pid!
  const log: LogLine[] = []
  createInterface({ input: child.stderr! }).on('line', (line) => {
    if (!line.startsWith('{')) return
    const read = JSON.parse(line) as LogLine
    if (read.msg !== 'request') log.push(read)
  })
  const ended = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string)
  return {
    url: await urlOf(child),
    pid,
    log,
    modelProcess: (model) => log.findLast((line) => line.msg === 'model ready' && line.model === model)?.pid,
    children: () => childrenOf(pid),
    send: (name) => void child.kill(name),
    ended,
  }
}

async function urlOf(child: ChildProcess): Promise<string> {
  const [first] = await Promise.race([
    once(child.stdout!, 'data'),
    once(child, 'exit').then(([code]) => {
      throw new Error(`the server ended with ${code} before it served`)
    }),
  ])
  return (JSON.parse(String(first)) as { url: string }).url
}

/** Whether a process still runs, stopped or not; what has ended and is not yet waited for does not. */
export const isAlive = (pid: number): boolean => /^State:\s+[^ZX]/m.test(readProc(`/proc/${pid}/status`))

/** Seconds that the thread of a process that waited longest for a processor has waited so far. */
export const processorWait = (pid: number): number =>
  Math.max(0, ...tasksOf(pid).map((task) => Number(readProc(`${task}/schedstat`).split(' ')[1] ?? 0) / 1e9))

/** Resident bytes of processes. */
export const residentBytes = (pids: readonly number[]): number =>
  pids.reduce(
    (sum, pid) => sum + Number(/^VmRSS:\s+(\d+) kB/m.exec(readProc(`/proc/${pid}/status`))?.[1] ?? 0) * 1024,
    0,
  )
