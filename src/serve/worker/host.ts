// The server's side of a model process: starts it, sends it work, reports when it has ended. Knows no HTTP.
import { type ChildProcess, fork } from 'node:child_process'
import { createRequire } from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { UserError } from '../../core/types.ts'
import { ApiError, internalError } from '../errors.ts'
import { processorWait } from './processor-wait.ts'
import type {
  GenerateEvent,
  GenerateJob,
  GenerateResult,
  ModelInfo,
  Prompt,
  ScoreJob,
  ScoreResult,
  WorkerError,
  WorkerReply,
  WorkerRequest,
  WorkerSettings,
} from './protocol.ts'

export interface ModelWorker {
  readonly info: ModelInfo
  readonly pid: number
  /** Whether it answered when it was last asked. */
  readonly responsive: boolean
  generate(job: GenerateJob, signal: AbortSignal, onEvent: (event: GenerateEvent) => void): Begun<GenerateResult>
  score(job: ScoreJob, signal: AbortSignal): Begun<ScoreResult>
  tokenize(
    prompt: Prompt,
    options: { addSpecialTokens: boolean; maxPromptTokens: number },
    signal: AbortSignal,
  ): Promise<number[]>
  detokenize(ids: number[], signal: AbortSignal): Promise<string>
  /** Resolves when the process is gone, for whatever reason. */
  readonly gone: Promise<void>
  /** Ends the process after its work; `now` ends it at once. */
  close(now?: boolean): Promise<void>
}

/** Work that a process was given. */
export interface Begun<T> {
  /** Rejects at once with the signal's reason. */
  result: Promise<T>
  /** Resolves when the process no longer works at it: later than `result` where that was broken off. */
  ended: Promise<void>
}

export interface HostOptions {
  /** Ends the process where it is not loaded yet. */
  signal: AbortSignal
  /** Longest time that loading may take. */
  seconds: number
  /** What a worker reports of errors that are not the client's. */
  onInternalError(message: string): void
  /** What a process prints, ONNX Runtime's warnings for instance. */
  onOutput(text: string): void
}

/** For clients whose work a process has not taken up. */
export const notAnswering = (seconds: number): ApiError =>
  new ApiError(503, `the process of this model did not answer within ${seconds} s`, {
    code: 'model_unresponsive',
    retryAfter: 10,
  })

/** For clients whose request ended with the process, or that ask while it starts again. */
export const workerGone = (): ApiError =>
  new ApiError(503, 'the process of this model ended and is being restarted; try again in a moment', {
    code: 'model_restarting',
    retryAfter: 2,
  })

/** How often a process is asked whether it still answers; how often in a row it may not before it counts, and is killed. */
const PING_MS = 1000
const LATE_PINGS = 3
const MISSED_PINGS = 6
/** The same where it waited for a processor meanwhile, which is taken off up to here. */
const MISSED_AT_MOST = 60
/** Characters of what a process prints at a time. */
const MOST_OUTPUT = 4096

interface Pending {
  resolve(value: unknown): void
  reject(error: unknown): void
  onEvent?: (event: GenerateEvent) => void
}

/**
 * Starts a process and loads the model in it. Rejects with UserError where the model cannot be loaded, or with the signal's
 * reason. A process that stops answering later, in an endless loop for instance, is killed.
 */
export async function startWorker(
  settings: WorkerSettings,
  { signal, seconds, onInternalError, onOutput }: HostOptions,
): Promise<ModelWorker> {
  const child = forkChild()
  const pending = new Map<number, Pending>()
  /** Of what was broken off and the process has not ended yet. */
  const ending = new Map<number, () => void>()
  let nextId = 0
  let missed = 0
  let loaded: (info: ModelInfo) => void
  let unloadable: (error: Error) => void
  const loading = new Promise<ModelInfo>((resolve, reject) => {
    loaded = resolve
    unloadable = reject
  })

  const gone = new Promise<void>((resolve) => {
    child.once('exit', (code, signal) => {
      unloadable(new UserError(`the process of the model ended (${signal ?? `exit ${code}`}) before it was loaded`))
      for (const { reject } of pending.values()) reject(workerGone())
      pending.clear()
      for (const end of ending.values()) end()
      ending.clear()
      resolve()
    })
  })
  for (const stream of [child.stdout!, child.stderr!])
    stream.setEncoding('utf8').on('data', (text: string) => onOutput(text.trimEnd().slice(0, MOST_OUTPUT)))
  // An error of the channel is followed by the exit, which is reported.
  child.on('error', () => {})

  const send = (request: WorkerRequest): void => {
    if (child.connected) child.send(request)
  }

  child.on('message', (replies: WorkerReply[]) => {
    missed = 0
    for (const reply of replies) take(reply)
  })

  function take(reply: WorkerReply): void {
    if (reply.kind === 'loaded') loaded(reply.info)
    else if (reply.kind === 'unloadable') unloadable(new UserError(reply.message))
    else if (reply.kind !== 'pong') {
      const waiting = pending.get(reply.id)
      if (reply.kind === 'event') waiting?.onEvent?.(reply.event)
      else {
        ending.get(reply.id)?.()
        ending.delete(reply.id)
        if (reply.kind === 'done') waiting?.resolve(reply.value)
        else waiting?.reject(toApiError(reply.error))
      }
    }
  }

  function toApiError({ kind, message, param, code }: WorkerError): ApiError {
    if (kind === 'request') return new ApiError(400, message, { param, code })
    onInternalError(message)
    return internalError()
  }

  function begin<T>(
    make: (id: number) => WorkerRequest,
    signal?: AbortSignal,
    onEvent?: (event: GenerateEvent) => void,
  ): Begun<T> {
    const refused = !child.connected ? workerGone() : signal?.aborted ? signal.reason : undefined
    if (refused) return { result: Promise.reject(refused), ended: Promise.resolve() }
    const id = nextId++
    let over = () => {}
    const ended = new Promise<void>((resolve) => {
      over = resolve
    })
    const result = new Promise<T>((resolve, reject) => {
      const settle = () => {
        pending.delete(id)
        signal?.removeEventListener('abort', abort)
      }
      const abort = () => {
        ending.set(id, over)
        send({ kind: 'cancel', id })
        settle()
        reject(signal?.reason)
      }
      pending.set(id, {
        resolve(value) {
          settle()
          over()
          resolve(value as T)
        },
        reject(error) {
          settle()
          over()
          reject(error)
        },
        onEvent,
      })
      signal?.addEventListener('abort', abort, { once: true })
      send(make(id))
    })
    return { result, ended }
  }

  const request = <T>(make: (id: number) => WorkerRequest, signal?: AbortSignal): Promise<T> =>
    begin<T>(make, signal).result

  async function close(now = false): Promise<void> {
    if (now) child.kill('SIGKILL')
    else send({ kind: 'close' })
    await gone
  }

  const abort = () => unloadable(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  const tooLong = () => unloadable(new UserError(`the model was not loaded within ${seconds} s (limits.load_seconds)`))
  const limit = setTimeout(tooLong, seconds * 1000)
  send({ kind: 'load', settings })
  let info: ModelInfo
  try {
    info = await loading
  } catch (error) {
    await close(true)
    throw error
  } finally {
    clearTimeout(limit)
    signal.removeEventListener('abort', abort)
  }
  // Counted, not timed: neither a machine that slept nor a busy server makes a process look stuck.
  const pid = child.pid!
  let waitedBefore = 0
  const heartbeat = setInterval(() => {
    if (missed === 0) waitedBefore = processorWait(pid)
    const own = missed - ((processorWait(pid) - waitedBefore) * 1000) / PING_MS
    if (own < MISSED_PINGS && missed++ < MISSED_AT_MOST) return send({ kind: 'ping' })
    onInternalError(`the process does not answer for ${(missed * PING_MS) / 1000} s and is killed`)
    child.kill('SIGKILL')
  }, PING_MS)
  heartbeat.unref()
  void gone.then(() => clearInterval(heartbeat))
  return {
    info,
    pid,
    get responsive() {
      return missed < LATE_PINGS
    },
    generate: (job, signal, onEvent) => begin((id) => ({ kind: 'generate', id, job }), signal, onEvent),
    score: (job, signal) => begin((id) => ({ kind: 'score', id, job }), signal),
    tokenize: (prompt, options, signal) => request((id) => ({ kind: 'tokenize', id, prompt, ...options }), signal),
    detokenize: (ids, signal) => request((id) => ({ kind: 'detokenize', id, ids }), signal),
    gone,
    close,
  }
}

function forkChild(): ChildProcess {
  // The sources run through tsx, the build as it is.
  const source = import.meta.url.endsWith('.ts')
  const entry = fileURLToPath(new URL(source ? './child.ts' : './child.js', import.meta.url))
  const loader = source ? ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href] : []
  // Keys are the server's own.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^UNMASK_(API|AUDIT|MODERATION)_KEY/.test(name)),
  )
  return fork(entry, [], { execArgv: loader, env, serialization: 'advanced', stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
}
