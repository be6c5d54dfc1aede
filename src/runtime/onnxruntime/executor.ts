// ONNX Runtime in a worker thread: the caller's event loop stays free.
import { availableParallelism } from 'node:os'
import { SHARE_ENV } from 'node:worker_threads'
import { type Device, UserError } from '../../core/types.ts'
import { type ExportedProgram, exportOnnx, type Program } from '../../graph/program.ts'
import { startThread } from '../../threads/start.ts'
import type { Executor, LoadOptions, Session, Weight } from '../executor.ts'
import { clipsProducts, hasIntegerProducts } from './clipping.ts'
import type { Request, WorkerData } from './protocol.ts'

export interface ExecutorOptions {
  /** Size of ONNX Runtime's pool of threads. Default: the cores of the machine. */
  threads?: number
  /** Default `cpu`. Loading a program throws UserError where the machine has no such device. */
  device?: Device
}

export interface ModelOptions {
  /** ONNX Runtime's rewriting of the graph. Default true. */
  optimize?: boolean
  /** Values of inputs that become constants, taken one after the other; each moves to the worker. */
  weights?: Iterable<Weight> | AsyncIterable<Weight>
  /** Folder of the files that the model's external data refer to; they are mapped into memory. */
  externalFolder?: string
  /** File prefix for a profile. */
  profile?: string
  /** Products of 8-bit numbers by instructions that never clip; see `clipsProducts`. Needs `optimize`. Default false. */
  unclipped?: boolean
}

export interface OnnxRuntimeExecutor extends Executor {
  /** Loads an ONNX model as it is. */
  loadModel(model: Uint8Array, options?: ModelOptions): Promise<Session>
}

/** The ONNX model that a program is loaded as. */
export function lower(program: Program, { constants, files, rewrite }: LoadOptions = {}): ExportedProgram {
  const external = files && { location: '', tensors: files.tensors }
  return exportOnnx(program, { target: 'onnxruntime-node', loaded: constants?.names, external, rewrite })
}

/** Starts a worker. */
export function createExecutor({
  threads = availableParallelism(),
  device = 'cpu',
}: ExecutorOptions = {}): OnnxRuntimeExecutor {
  const worker = startThread(new URL('./worker.ts', import.meta.url), {
    workerData: { threads, device } satisfies WorkerData,
    // What the worker puts into its environment is for ONNX Runtime, which reads the process's.
    env: SHARE_ENV,
    // It makes messages and little else; V8's default lets such garbage grow to 48 MB.
    resourceLimits: { maxYoungGenerationSizeMb: 6 },
  })
  const pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  let nextId = 0
  let nextSession = 0
  let failure: Error | undefined
  let ended = false
  /** Whether products of 8-bit numbers clip here, once somebody needs to know. */
  let clips: Promise<boolean> | undefined

  worker.on(
    'message',
    ({ id, value, error, user }: { id: number; value?: unknown; error?: string; user?: boolean }) => {
      const waiting = pending.get(id)
      pending.delete(id)
      if (pending.size === 0) worker.unref()
      if (error === undefined) waiting?.resolve(value)
      else waiting?.reject(user ? new UserError(error) : new Error(error))
    },
  )
  const fail = (error: Error) => {
    failure = error
    for (const { reject } of pending.values()) reject(error)
    pending.clear()
  }
  worker.on('error', fail)
  worker.on('exit', () => {
    ended = true
    fail(failure ?? new Error('the executor was disposed'))
  })
  worker.unref()

  function send<T>(message: Request, transfer: readonly ArrayBuffer[] = [], signal?: AbortSignal): Promise<T> {
    if (failure) return Promise.reject(failure)
    if (signal?.aborted) return Promise.reject(signal.reason)
    return request(message, transfer, signal)
  }

  function request<T>(message: Request, transfer: readonly ArrayBuffer[] = [], signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = nextId++
      const abort = () => {
        pending.get(id)?.reject(signal?.reason)
        pending.set(id, { resolve: () => {}, reject: () => {} })
      }
      const settle = () => signal?.removeEventListener('abort', abort)
      pending.set(id, {
        resolve: (value) => {
          settle()
          resolve(value as T)
        },
        reject: (error) => {
          settle()
          reject(error)
        },
      })
      signal?.addEventListener('abort', abort, { once: true })
      // A worker in use keeps the process alive, an idle one does not.
      worker.ref()
      worker.postMessage({ id, request: message }, transfer as ArrayBuffer[])
    })
  }

  async function loadModel(
    model: Uint8Array,
    { optimize = true, weights = [], externalFolder, profile, unclipped = false }: ModelOptions = {},
  ): Promise<Session> {
    const session = `session${nextSession++}`
    try {
      for await (const weight of weights)
        await send({ kind: 'weight', session, weight }, [weight.data.buffer as ArrayBuffer])
      await send({ kind: 'load', session, model, options: { optimize, externalFolder, profile, unclipped } })
    } catch (error) {
      // Weights that came before the error.
      if (!failure) await send({ kind: 'unload', session })
      throw error
    }
    return {
      run: (feeds, fetches, { signal } = {}) => send({ kind: 'run', session, feeds, fetches }, [], signal),
      bind: (feeds, fetches) => send({ kind: 'bind', session, feeds, fetches }),
      endProfiling: () => send({ kind: 'endProfiling', session }),
      release: () => send({ kind: 'unload', session }),
    }
  }

  return {
    threads,
    device,
    async load(program, options = {}) {
      const { constants, files, optimize, profile } = options
      const lowered = lower(program, options)
      if (hasIntegerProducts(lowered)) clips ??= clipsProducts(loadModel)
      return loadModel(lowered.model, {
        optimize,
        weights: constants?.values(lowered.loaded),
        externalFolder: files?.folder,
        profile,
        unclipped: await clips,
      })
    },
    loadModel,
    allocate: (name, dtype, content) =>
      typeof content === 'number'
        ? send({ kind: 'allocate', name, dtype, size: content })
        : send({ kind: 'allocate', name, dtype, size: content.length, data: content }, [content.buffer as ArrayBuffer]),
    resize: (names, dtype, size, moves) => send({ kind: 'resize', names, dtype, size, moves }),
    free: (...names) => send({ kind: 'free', names }),
    read: (name, offset, length) => send({ kind: 'read', name, offset, length }),
    write: (name, data, offset) => send({ kind: 'write', name, data, offset }, [data.buffer as ArrayBuffer]),
    move: (names, moves, to = names) => send({ kind: 'move', names, moves, to }),
    memory: () => send({ kind: 'memory' }),
    async dispose() {
      failure ??= new Error('the executor was disposed')
      // A worker that is stopped in the middle of native code takes the process with it, so what runs may finish.
      const waiting = [...pending.entries()]
      for (const [id, { reject }] of waiting) {
        pending.set(id, { resolve: () => {}, reject: () => {} })
        reject(failure)
      }
      if (!ended) await request({ kind: 'close' }).catch(() => {})
      await worker.terminate()
    },
  }
}
