// ONNX Runtime in a worker thread: the caller's event loop stays free. Knows programs as ONNX bytes, not models.
import { availableParallelism } from 'node:os'
import { SHARE_ENV, Worker } from 'node:worker_threads'
import { type Device, type DType, type TensorData, type TypedArray, UserError } from '../types.ts'
import type { Move, Request, Resident, Source, Weight } from './protocol.ts'

export type { Move, Resident, Source, Weight } from './protocol.ts'

export interface RunOptions {
  /** Rejects with the signal's reason at once; the run itself finishes in the worker and its result is dropped. */
  signal?: AbortSignal
}

export interface Session {
  /** Runs with `feeds`; an output fetched as null is returned, one fetched as a resident is written there. */
  run(
    feeds: Record<string, Source>,
    fetches: Record<string, Resident | null>,
    options?: RunOptions,
  ): Promise<Record<string, TensorData>>
  /**
   * Inputs and outputs that the runs that follow have beside their own, so that what stays the same is not sent with each.
   * They take the place of what was bound before, and are bound no longer when one of the buffers is allocated anew or freed.
   */
  bind(feeds: Record<string, Resident>, fetches: Record<string, Resident>): Promise<void>
  /** Writes ONNX Runtime's profile; only for sessions loaded with `enableProfiling`. */
  endProfiling(): Promise<void>
  release(): Promise<void>
}

export interface SessionOptions {
  /** Inference models gain from ONNX Runtime's graph rewriting; training programs are emitted in their final form. */
  optimize?: boolean
  /**
   * Values of inputs that are the same in every run: they become part of the session, which packs them. Taken one after the
   * other, so that they need not exist at the same time; each is moved to the worker and no longer usable here.
   */
  weights?: Iterable<Weight> | AsyncIterable<Weight>
  /** Folder of the files that the model's external data refer to; they are mapped into memory. */
  externalFolder?: string
  /** File prefix for a profile. */
  profile?: string
}

export interface Executor {
  readonly threads: number
  readonly device: Device
  load(model: Uint8Array, options?: SessionOptions): Promise<Session>
  /** A zeroed buffer in the worker, or one made of `data`, which is moved there and no longer usable here. */
  allocate(name: string, dtype: DType, content: number | TypedArray): Promise<void>
  /**
   * Gives each of the buffers `size` elements, zeros but for what the moves copy from the old buffer, which need not exist
   * where there are none. One buffer after the other, so that no two are there twice.
   */
  resize(names: readonly string[], dtype: DType, size: number, moves: readonly Move[]): Promise<void>
  free(...names: string[]): Promise<void>
  /** A copy of (part of) a resident buffer; offset and length count elements. */
  read(name: string, offset?: number, length?: number): Promise<TypedArray>
  /** Overwrites part of a resident buffer with `data`, which is moved to the worker and no longer usable here. */
  write(name: string, data: TypedArray, offset?: number): Promise<void>
  /** Makes the same moves, one after the other, in each of the resident buffers. */
  move(names: readonly string[], moves: readonly Move[]): Promise<void>
  /** Resident set size of the process in bytes. */
  memory(): Promise<number>
  dispose(): Promise<void>
}

export interface ExecutorOptions {
  /** Size of ONNX Runtime's pool of threads. Default: the cores of the machine. */
  threads?: number
  /** Default `cpu`. Loading a program throws UserError where the machine has no such device. */
  device?: Device
}

/** Starts a worker. */
export function createExecutor({ threads = availableParallelism(), device = 'cpu' }: ExecutorOptions = {}): Executor {
  const worker = new Worker(new URL('./worker.js', import.meta.url), {
    workerData: { threads, device },
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

  return {
    threads,
    device,
    async load(model, { optimize = true, weights = [], externalFolder, profile } = {}) {
      const session = `session${nextSession++}`
      try {
        for await (const weight of weights)
          await send({ kind: 'weight', session, weight }, [weight.data.buffer as ArrayBuffer])
        await send({
          kind: 'load',
          session,
          model,
          options: {
            optimize,
            config: externalFolder ? { 'session.model_external_initializers_file_folder_path': externalFolder } : {},
            ...(profile ? { profile } : {}),
          },
        })
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
    },
    allocate: (name, dtype, content) =>
      typeof content === 'number'
        ? send({ kind: 'allocate', name, dtype, size: content })
        : send({ kind: 'allocate', name, dtype, size: content.length, data: content }, [content.buffer as ArrayBuffer]),
    resize: (names, dtype, size, moves) => send({ kind: 'resize', names, dtype, size, moves }),
    free: (...names) => send({ kind: 'free', names }),
    read: (name, offset, length) => send({ kind: 'read', name, offset, length }),
    write: (name, data, offset) => send({ kind: 'write', name, data, offset }, [data.buffer as ArrayBuffer]),
    move: (names, moves) => send({ kind: 'move', names, moves }),
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
