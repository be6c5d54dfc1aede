// PyTorch in a process of its own: python/unmask_torch. Requests are JSON lines; tensors lie in safetensors files of a folder
// that is gone when the process is.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type TensorData, UserError } from '../../core/types.ts'
import { isRecord } from '../../formats/json.ts'
import { decodeTensors, encodeTensors } from '../../formats/safetensors.ts'

/** The oldest PyTorch that is known to do. */
const OLDEST = [2, 6] as const

/** Lines of standard error that are kept, and those that an error message ends with. */
const KEPT_LINES = 200
const LAST_LINES = 12

/** After this several processes are told to end. */
const SECONDS_TO_END = 10

/** The last lines that a process writes, as they come. */
function keptLines(stream: Readable): string[] {
  const lines: string[] = []
  createInterface({ input: stream }).on('line', (line) => {
    lines.push(line)
    if (lines.length > KEPT_LINES) lines.shift()
  })
  return lines
}

/** What is said where memory is short; the system ends processes by SIGKILL (9) then. */
const SHORT_OF_MEMORY = /out of memory|can't allocate memory|MemoryError|exitcode: -9\b/i

const NEEDS_LESS =
  'If memory was short: a smaller train.micro_batch_size or data.max_seq_len, train.enable_gradient_checkpointing, or a larger machine; then --resume.'

const withAdvice = (problem: string): string => (SHORT_OF_MEMORY.test(problem) ? `${problem}\n${NEEDS_LESS}` : problem)

/** How a process ended, and what it said. */
function endOf(python: string, code: string | number | null, lines: readonly string[]): string {
  const said = tellingLines(lines)
  const end = `${python} ended with ${code}${said.length > 0 ? `:\n${said.join('\n')}` : ''}`
  return code === 'SIGKILL' ? `${end}\n${NEEDS_LESS}` : withAdvice(end)
}

/** An error that a request was answered with: a defect, unless memory was short. */
const errorOf = (message: string): Error =>
  SHORT_OF_MEMORY.test(message) ? new UserError(`PyTorch: ${withAdvice(message)}`) : new Error(`PyTorch: ${message}`)

/** A line of JSON; undefined for what Python's start-up files print. */
function answerIn(line: string): { id?: number; error?: string } | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** Of what torchrun and its processes wrote, why one of them ended; else the last lines. */
function tellingLines(lines: readonly string[]): readonly string[] {
  const telling = lines.filter((line) => /^unmask: process \d+: |failed \(exitcode: /.test(line))
  return (telling.length > 0 ? telling : lines).slice(-LAST_LINES)
}

/** Where `python -m unmask_torch.worker` finds it: the package's own folder. */
const PACKAGE = fileURLToPath(new URL('../../../python', import.meta.url))

const VERSIONS_NEEDED = `PyTorch ${OLDEST.join('.')} or later and safetensors (pip install torch safetensors)`

export interface TorchProcess {
  readonly torch: string
  /** Of the process that was started, whose children are the others. */
  readonly pid: number | undefined
  /** Processes that share the work. */
  readonly processes: number
  /** What a request answers. Rejects with what Python says, or with its last lines where the process has ended. */
  request<T extends object>(kind: string, fields?: object): Promise<T>
  /** Writes tensors to a new file. */
  put(tensors: ReadonlyMap<string, TensorData>): Promise<string>
  /** Writes text or bytes to a new file. */
  putFile(content: Uint8Array | string): Promise<string>
  /** A name for a file that a request writes. */
  file(): string
  /** Reads a file of tensors, and deletes it. */
  take(path: string): Promise<Map<string, TensorData>>
  remove(...paths: string[]): Promise<void>
  dispose(): Promise<void>
}

export interface TorchOptions {
  /** Default: what UNMASK_PYTHON names, else python3. */
  python?: string
  /** More than one are started by torchrun. Default 1. */
  processes?: number
  /** Default: that of this process. With PET_NNODES above 1, torchrun takes its settings from it; see `joinTorch`. */
  env?: NodeJS.ProcessEnv
}

const WORKER = ['-m', 'unmask_torch.worker']
const TORCHRUN = ['-m', 'torch.distributed.run']

const environment = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv => ({
  // Else torchrun says that it has set it to 1; the worker is told how many threads to use.
  OMP_NUM_THREADS: '1',
  ...env,
  PYTHONPATH: PACKAGE,
})

const isSpread = ({ PET_NNODES }: NodeJS.ProcessEnv): boolean => Number(PET_NNODES ?? 1) > 1

/**
 * Takes part in the training that another machine has begun, until that ends: torchrun reads PET_NNODES, PET_NODE_RANK,
 * PET_NPROC_PER_NODE, PET_MASTER_ADDR and PET_MASTER_PORT. Throws UserError where it fails.
 */
export async function joinTorch({
  python = process.env.UNMASK_PYTHON ?? 'python3',
  env = process.env,
  signal,
}: Omit<TorchOptions, 'processes'> & { signal?: AbortSignal } = {}): Promise<void> {
  const child = spawn(python, [...TORCHRUN, ...WORKER], {
    env: environment(env),
    stdio: ['ignore', 'ignore', 'pipe'],
    signal,
  })
  const lines = keptLines(child.stderr)
  const code = await new Promise<string | number | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve(signal ?? code))
  })
  if (code !== 0) throw new UserError(endOf(python, code, lines))
}

/** Starts PyTorch. Throws UserError where it, or its Python, is not there or too old, or other processes come than expected. */
export async function startTorch({
  python = process.env.UNMASK_PYTHON ?? 'python3',
  processes = 1,
  env = process.env,
}: TorchOptions = {}): Promise<TorchProcess> {
  const folder = await mkdtemp(join(env.TMPDIR ?? tmpdir(), 'unmask-torch-'))
  const here = isSpread(env) ? TORCHRUN : [...TORCHRUN, '--standalone', `--nproc-per-node=${processes}`]
  const child = spawn(python, [...(processes > 1 ? here : []), ...WORKER], {
    env: environment(env),
    // Ctrl-C in a terminal would have torchrun end its processes in the middle of a step.
    detached: processes > 1,
  })
  const talk = conversation(child, python, processes > 1)
  let files = 0
  const file = () => join(folder, `${files++}`)
  async function dispose(): Promise<void> {
    await talk.end()
    await rm(folder, { recursive: true, force: true })
  }
  async function putFile(content: Uint8Array | string): Promise<string> {
    const path = file()
    await writeFile(path, content)
    return path
  }
  try {
    const { torch, processes: found } = await talk.greeting
    if (found !== processes)
      throw new UserError(
        `${found} processes of PyTorch came, but the recipe says processes: ${processes}; with several machines it is PET_NNODES x PET_NPROC_PER_NODE`,
      )
    const [major = 0, minor = 0] = torch.split('.').map(Number)
    if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]))
      throw new UserError(`${python} has PyTorch ${torch}; needed: ${VERSIONS_NEEDED}`)
    return {
      torch,
      pid: child.pid,
      processes,
      request: talk.request,
      put: (tensors) => putFile(encodeTensors(tensors)),
      putFile,
      file,
      async take(path) {
        const tensors = decodeTensors(path, await readFile(path))
        await rm(path)
        return tensors
      },
      async remove(...paths) {
        for (const path of paths) await rm(path, { force: true })
      },
      dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

interface Waiting {
  resolve(value: never): void
  reject(error: Error): void
}

/** Sends requests and takes answers, until the process ends. */
function conversation(child: ChildProcessWithoutNullStreams, python: string, several: boolean) {
  const lastLines = keptLines(child.stderr)
  const waiting = new Map<number, Waiting>()
  let next = 0
  let failure: Error | undefined
  let isReady = false
  let ended = false
  const isClosed = new Promise<unknown>((resolve) => child.once('close', resolve).once('error', resolve))

  const fail = (error: Error) => {
    failure ??= error
    for (const { reject } of waiting.values()) reject(failure)
    waiting.clear()
  }
  const greeting = new Promise<{ torch: string; python: string; processes: number }>((resolve, reject) => {
    waiting.set(-1, { resolve: resolve as Waiting['resolve'], reject })
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    const answer = answerIn(line)
    if (!answer) return
    const id = isReady ? (answer.id as number) : -1
    isReady = true
    const own = waiting.get(id)
    waiting.delete(id)
    if (answer.error === undefined) own?.resolve(answer as never)
    else own?.reject(errorOf(answer.error))
  })
  child.on('error', (error) => {
    fail(new UserError(`${python}: ${error.message}; name a Python with ${VERSIONS_NEEDED} in UNMASK_PYTHON`))
  })
  child.on('close', (code, signal) => {
    const isMissing = !isReady && lastLines.some((line) => /No module named '(torch|safetensors)'/.test(line))
    if (isMissing) fail(new UserError(`${python} lacks ${VERSIONS_NEEDED}; name another in UNMASK_PYTHON`))
    else fail(ended ? new Error('PyTorch was ended') : new UserError(endOf(python, signal ?? code, lastLines)))
  })
  child.stdin.on('error', () => {
    // 'close' says why.
  })
  return {
    greeting,
    request<T extends object>(kind: string, fields: object = {}): Promise<T> {
      if (failure) return Promise.reject(failure)
      return new Promise<T>((resolve, reject) => {
        const id = next++
        waiting.set(id, { resolve: resolve as Waiting['resolve'], reject })
        child.stdin.write(`${JSON.stringify({ kind, request: id, ...fields })}\n`)
      })
    },
    /** Ends the process. Several end by themselves, all together, unless one of them is stuck. */
    async end() {
      ended = true
      child.stdin.end()
      if (!several) child.kill('SIGKILL')
      const timer = setTimeout(() => child.kill('SIGTERM'), SECONDS_TO_END * 1000)
      await isClosed
      clearTimeout(timer)
    },
  }
}
