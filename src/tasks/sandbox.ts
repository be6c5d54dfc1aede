// Runs Python programs that a model wrote, each in a process without network, files or rights (python/unmask_sandbox.py).
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UserError } from '../core/types.ts'

export interface SandboxLimits {
  /** Wall-clock time, 0.1 to 600. Default 3, that of the reference implementation of HumanEval. */
  seconds?: number
  /** Address space in bytes. Default 512 MiB. */
  memory?: number
  /** Bytes that it may write, all files together. Default 1 MiB. */
  files?: number
}

export interface Ran {
  /** `failed`: it raised an error, or ended early. */
  status: 'passed' | 'failed' | 'timed out'
  /** The error, at most 500 characters. */
  detail: string
}

/** Runs a program, tests included: passed where it came to its end without an error. */
export type RunProgram = (program: string) => Promise<Ran>

const SCRIPT = fileURLToPath(new URL('../../python/unmask_sandbox.py', import.meta.url))

/** What starting Python and building the file system may take on a busy machine. */
const START_SECONDS = 60

/** What all programs must run into. */
const PROBE = `
import socket
try:
    socket.socket()
except PermissionError:
    pass
else:
    raise SystemExit("the network is in reach")
`

/**
 * A sandbox, tried out first. `python` is by default what UNMASK_PYTHON names, else python3. Throws UserError where the
 * system cannot contain a program: nothing is then run without a sandbox.
 */
export async function createSandbox({
  limits: { seconds = 3, memory = 512 * 2 ** 20, files = 2 ** 20 } = {},
  python = process.env.UNMASK_PYTHON ?? 'python3',
  signal,
}: {
  limits?: SandboxLimits
  python?: string
  signal?: AbortSignal
} = {}): Promise<RunProgram> {
  const run = async (program: string, time: number): Promise<Ran> => {
    signal?.throwIfAborted()
    const folder = await mkdtemp(join(tmpdir(), 'unmask-sandbox-'))
    try {
      const { status, detail } = await answerOf(python, { program, folder, seconds: time, memory, files }, signal)
      if (status === 'unavailable')
        throw new UserError(
          `no sandbox for programs here: ${detail}. It needs Linux where this user may make namespaces (in a container: as root with SYS_ADMIN, or with user namespaces allowed)`,
        )
      return { status, detail }
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
  const { status, detail } = await run(PROBE, START_SECONDS)
  if (status !== 'passed') throw new UserError(`no sandbox for programs here: the trial program ${status}: ${detail}`)
  return (program) => run(program, seconds)
}

interface Job {
  program: string
  folder: string
  seconds: number
  memory: number
  files: number
}

type Answer = { status: Ran['status'] | 'unavailable'; detail: string }

function answerOf(python: string, job: Job, signal: AbortSignal | undefined): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const child = spawn(python, ['-I', '-B', SCRIPT], {
      env: { PATH: process.env.PATH },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: 1000 * (job.seconds + START_SECONDS),
      killSignal: 'SIGKILL',
      signal,
    })
    let out = ''
    let errors = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-2000)
    })
    child.on('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'ENOENT'
          ? new UserError(
              `${python} is not there; programs are run with Python 3.9 or later: name one in UNMASK_PYTHON`,
            )
          : error,
      ),
    )
    child.on('close', () => {
      try {
        resolve(JSON.parse(out) as Answer)
      } catch {
        reject(new UserError(`the sandbox did not start: ${errors.trim().split('\n').at(-1) || 'no answer'}`))
      }
    })
    // A child that ends early closes its input; what went wrong is in its output.
    child.stdin.on('error', () => {})
    child.stdin.end(JSON.stringify(job))
  })
}
