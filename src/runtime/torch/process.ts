// PyTorch in a process of its own: python/unmask_torch. Requests are JSON lines; tensors lie in safetensors files of a folder
// that is gone when the process is.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type TensorData, UserError } from '../../core/types.ts'
import { decodeTensors, encodeTensors } from '../../formats/safetensors.ts'

/** The oldest PyTorch that is known to do. */
const OLDEST = [2, 6] as const

/** Lines of standard error that are kept, and those that an error message ends with. */
const KEPT_LINES = 200
const LAST_LINES = 12

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
}

/** Starts PyTorch. Throws UserError where it, or its Python, is not there or too old. */
export async function startTorch({
  python = process.env.UNMASK_PYTHON ?? 'python3',
  processes = 1,
}: TorchOptions = {}): Promise<TorchProcess> {
  const folder = await mkdtemp(join(tmpdir(), 'unmask-torch-'))
  const launcher = processes > 1 ? ['-m', 'torch.distributed.run', '--standalone', `--nproc-per-node=${processes}`] : []
  const child = spawn(python, [...launcher, '-m', 'unmask_torch.worker'], {
    // Else torchrun says that it has set it to 1; the worker is told how many threads to use.
    env: { OMP_NUM_THREADS: '1', ...process.env, PYTHONPATH: PACKAGE },
    // Ctrl-C in a terminal would have torchrun end its processes in the middle of a step.
    detached: processes > 1,
  })
  const talk = conversation(child, python, processes > 1 ? 'SIGTERM' : 'SIGKILL')
  let files = 0
  const file = () => join(folder, `${files++}`)
  async function dispose(): Promise<void> {
    talk.end()
    await rm(folder, { recursive: true, force: true })
  }
  async function putFile(content: Uint8Array | string): Promise<string> {
    const path = file()
    await writeFile(path, content)
    return path
  }
  try {
    const { torch } = await talk.greeting
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
function conversation(child: ChildProcessWithoutNullStreams, python: string, ending: NodeJS.Signals) {
  const lastLines: string[] = []
  const waiting = new Map<number, Waiting>()
  let next = 0
  let failure: Error | undefined
  let isReady = false
  let ended = false

  createInterface({ input: child.stderr }).on('line', (line) => {
    lastLines.push(line)
    if (lastLines.length > KEPT_LINES) lastLines.shift()
  })
  const fail = (error: Error) => {
    failure ??= error
    for (const { reject } of waiting.values()) reject(failure)
    waiting.clear()
  }
  const greeting = new Promise<{ torch: string; python: string }>((resolve, reject) => {
    waiting.set(-1, { resolve: resolve as Waiting['resolve'], reject })
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    const answer = JSON.parse(line) as { id?: number; error?: string }
    const id = isReady ? (answer.id as number) : -1
    isReady = true
    const own = waiting.get(id)
    waiting.delete(id)
    if (answer.error === undefined) own?.resolve(answer as never)
    else own?.reject(new Error(`PyTorch: ${answer.error}`))
  })
  child.on('error', (error) => {
    fail(new UserError(`${python}: ${error.message}; name a Python with ${VERSIONS_NEEDED} in UNMASK_PYTHON`))
  })
  child.on('close', (code, signal) => {
    const said = tellingLines(lastLines)
    const end = `${python} ended with ${signal ?? code}${said.length > 0 ? `:\n${said.join('\n')}` : ''}`
    const isMissing = !isReady && lastLines.some((line) => /No module named '(torch|safetensors)'/.test(line))
    if (isMissing) fail(new UserError(`${python} lacks ${VERSIONS_NEEDED}; name another in UNMASK_PYTHON`))
    else fail(ended ? new Error('PyTorch was ended') : new UserError(end))
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
    end() {
      ended = true
      child.stdin.end()
      // torchrun has to end its processes, too.
      child.kill(ending)
    },
  }
}
