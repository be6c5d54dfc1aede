// The models of a server: each with a process and a queue of its own. Loads them when needed, unloads idle ones, starts again
// what crashed, and exchanges a process without losing work. Knows no HTTP.
import { setTimeout as sleep } from 'node:timers/promises'
import { shownJson } from '../formats/json.ts'
import { defaultName, type ModelConfig, type ServeConfig } from './config.ts'
import { ApiError } from './errors.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createRestarts } from './restarts.ts'
import { createQueue, type Queue } from './scheduler.ts'
import { within } from './wait.ts'
import { type ModelWorker, startWorker, workerGone } from './worker/host.ts'
import type { WorkerSettings } from './worker/protocol.ts'

export type ModelState = 'unloaded' | 'loading' | 'ready' | 'unresponsive' | 'restarting' | 'failed'

export interface ServedModel {
  readonly name: string
  readonly aliases: readonly string[]
  readonly created: number
  readonly state: ModelState
  /** Undefined while no process is ready. */
  readonly worker: ModelWorker | undefined
  readonly queue: Queue
  /** For short pieces of work beside what is generated: one at a time. */
  readonly errands: Queue
  /** Throws 503 while the model's process starts again after it crashed, so that no client waits for a crash to repeat. */
  check(): void
  /**
   * The process, loaded if need be. Throws 503 where it cannot be loaded or is not within `queue_seconds`, or the signal's
   * reason.
   */
  ready(signal: AbortSignal): Promise<ModelWorker>
  /** Counts work, so that a model in use is not unloaded. */
  enter(): () => void
}

export interface Models {
  /** The model of a name that a client gave, or the first without one. Throws 404. */
  find(name: string | undefined | null): ServedModel
  list(): readonly ServedModel[]
  /** Loads what is to be loaded at the start. Rejects where one cannot. */
  preload(): Promise<void>
  /** Loads every model that is loaded once more, with new settings, while the present processes finish their work. */
  reload(config: Pick<ServeConfig, 'models'>): Promise<void>
  /** Ends all processes; with `now` without waiting for their work. */
  close(now: boolean): Promise<void>
}

interface Options {
  log: Log
  metrics: Metrics
}

export function createModels(config: ServeConfig, options: Options): Models {
  let models = config.models.map((settings) => createModel(settings, config, options))
  /** No longer served, but not ended yet. */
  const leaving = new Set<(typeof models)[number]>()
  let closed = false
  let reloading: Promise<void> | undefined
  let pending: { config: Pick<ServeConfig, 'models'>; done: Promise<void> } | undefined

  async function exchange(next: Pick<ServeConfig, 'models'>): Promise<void> {
    const old = models
    models = next.models.map((settings) => {
      const same = old.find((model) => model.name === (settings.name ?? defaultName(settings.path)))
      return same ?? createModel(settings, config, options)
    })
    const gone = old.filter((model) => !models.includes(model))
    for (const model of gone) leaving.add(model)
    await Promise.all([
      ...gone.map((model) => model.close(false).finally(() => leaving.delete(model))),
      ...models.map((model, index) => model.reload(next.models[index]!)),
    ])
  }

  /** One at a time, and one that waits, with what was asked for last. */
  function reload(config: Pick<ServeConfig, 'models'>): Promise<void> {
    if (closed) return Promise.resolve()
    if (!reloading) {
      reloading = exchange(config).finally(() => {
        reloading = undefined
      })
      return reloading
    }
    if (pending) pending.config = config
    else {
      const next = reloading
        .catch(() => {})
        .then(() => {
          const { config: last } = pending!
          pending = undefined
          return reload(last)
        })
      pending = { config, done: next }
    }
    return pending.done
  }

  return {
    find(name) {
      if (name === undefined || name === null) return models[0]!
      const found = models.find((model) => model.name === name || model.aliases.includes(name))
      if (found) return found
      const names = models.flatMap((model) => [model.name, ...model.aliases])
      throw new ApiError(404, `there is no model ${shownJson(name)}; there are: ${names.join(', ')}`, {
        code: 'model_not_found',
        param: 'model',
      })
    },
    list: () => models,
    async preload() {
      await Promise.all(models.filter((model) => model.settings.preload).map((model) => model.load()))
    },
    reload,
    async close(now) {
      closed = true
      await Promise.all([...models, ...leaving].map((model) => model.close(now)))
    },
  }
}

/** How long nobody tries to load a model that has failed, in ms. */
const RETRY_MS = 30_000

function createModel(
  initial: ModelConfig,
  config: Pick<ServeConfig, 'limits' | 'threads' | 'device'>,
  { log, metrics }: Options,
) {
  let settings = initial
  const name = initial.name ?? defaultName(initial.path)
  const { limits } = config
  const queue = createQueue({ concurrency: limits.concurrency, limit: limits.queue, seconds: limits.queue_seconds })
  const errands = createQueue({ concurrency: 1, limit: limits.queue, seconds: limits.queue_seconds })
  let state: ModelState = 'unloaded'
  let worker: ModelWorker | undefined
  let loading: Promise<ModelWorker> | undefined
  const closing = new AbortController()
  /** Processes that live, and those that start. */
  const alive = new Set<ModelWorker>()
  const starting = new Set<Promise<unknown>>()
  const use = createUse(() => settings.idle_seconds, unload)
  const restarts = createRestarts()
  let failed: { at: number; error: unknown } | undefined

  async function start(): Promise<ModelWorker> {
    const started = startWorker(workerSettings(settings, config), {
      signal: closing.signal,
      seconds: limits.load_seconds,
      onInternalError: (message) => log.error({ model: name, message }, 'model process'),
      onOutput: (text) => log.warn({ model: name, text }, 'printed by the model process'),
    })
    starting.add(started)
    try {
      const fresh = await started
      alive.add(fresh)
      void fresh.gone.then(() => alive.delete(fresh))
      return fresh
    } finally {
      starting.delete(started)
    }
  }

  /** Makes a process the one that gets the work, and watches it. One before it finishes what it has begun. */
  function adopt(fresh: ModelWorker): ModelWorker {
    if (closing.signal.aborted) throw workerGone()
    const before = worker
    // Who has just been given it sends it work in this turn.
    setImmediate(() => void before?.close())
    worker = fresh
    state = 'ready'
    failed = undefined
    const since = performance.now()
    log.info({ model: name, pid: fresh.pid, mode: fresh.info.mode }, 'model ready')
    void fresh.gone.then(() => {
      if (worker !== fresh) return
      worker = undefined
      if (closing.signal.aborted) return
      metrics.restarts.inc({ model: name })
      restarts.ended(performance.now() - since)
      log.error({ model: name, pid: fresh.pid }, 'model process ended; starting it again')
      void restart()
    })
    use.watch()
    return fresh
  }

  /** Starts processes until one lives, or too many have failed. Who waits for it learns of each attempt that fails. */
  async function restart(): Promise<void> {
    state = 'restarting'
    while (!worker && !closing.signal.aborted) {
      const pause = restarts.pause()
      if (pause === undefined) {
        state = 'failed'
        failed = { at: performance.now(), error: workerGone() }
        log.error({ model: name }, 'model given up: it is loaded again with SIGHUP, or when a client asks for it')
        break
      }
      loading = sleep(pause * 1000, undefined, { ref: false, signal: closing.signal })
        .then(start)
        .then(adopt)
      try {
        await loading
      } catch (error) {
        noteFailure(error)
      }
    }
    loading = undefined
  }

  function noteFailure(error: unknown): void {
    failed = { at: performance.now(), error }
    // Its text may hold paths, so it is for the log.
    if (!closing.signal.aborted) log.error({ model: name, message: messageOf(error) }, 'model cannot be loaded')
  }

  function load(): Promise<ModelWorker> {
    if (worker) return Promise.resolve(worker)
    if (loading) return loading
    if (closing.signal.aborted) return Promise.reject(workerGone())
    if (failed && performance.now() - failed.at < RETRY_MS) return Promise.reject(failed.error)
    state = 'loading'
    loading = start()
      .then(adopt)
      .catch((error) => {
        state = 'failed'
        noteFailure(error)
        throw error
      })
      .finally(() => {
        loading = undefined
      })
    return loading
  }

  function unload(): void {
    if (!worker) return
    const resting = worker
    worker = undefined
    state = 'unloaded'
    log.info({ model: name, pid: resting.pid }, 'model unloaded')
    void resting.close()
  }

  return {
    name,
    created: Math.floor(Date.now() / 1000),
    queue,
    errands,
    get aliases() {
      return settings.aliases
    },
    get settings() {
      return settings
    },
    get state() {
      return state === 'ready' && worker?.responsive === false ? 'unresponsive' : state
    },
    get worker() {
      return worker
    },
    check() {
      if (closing.signal.aborted || state === 'restarting') throw workerGone()
    },
    async ready(signal) {
      if (worker) return worker
      try {
        return await within(load(), { signal, seconds: limits.queue_seconds, late: stillLoading })
      } catch (error) {
        if (error instanceof ApiError) throw error
        throw new ApiError(503, 'the model cannot be loaded; the log of the server says why', {
          code: 'model_unavailable',
          retryAfter: 30,
        })
      }
    },
    enter: use.enter,
    load,
    /** Exchanges the process if there is one. Where the new one cannot be loaded the old one stays. */
    async reload(next: ModelConfig) {
      const before = settings
      settings = next
      // What is loading now may have begun with the old settings.
      await loading?.catch(() => {})
      if (!worker && state !== 'failed') return
      try {
        adopt(await start())
        restarts.clear()
      } catch (error) {
        settings = before
        if (!closing.signal.aborted) log.error({ model: name, message: messageOf(error) }, 'model kept as it was')
      }
    },
    async close(now: boolean) {
      closing.abort(workerGone())
      use.stop()
      queue.clear(workerGone())
      errands.clear(workerGone())
      await Promise.allSettled(starting)
      await Promise.all([...alive].map((process) => process.close(now)))
    },
  } satisfies ServedModel & Record<string, unknown>
}

/** What a model's process is told. */
const workerSettings = (
  { path, mode, adapter, block_size: blockSize, prefix_cache: keepPrefixes }: ModelConfig,
  { threads, device }: Pick<ServeConfig, 'threads' | 'device'>,
): WorkerSettings => ({
  ...{ path, mode, adapter, blockSize, device },
  ...(keepPrefixes > 0 ? { keepPrefixes } : {}),
  ...(threads > 0 ? { threads } : {}),
})

/** Counts who uses a model, and calls `onIdle` when nobody has for so many seconds; 0 for never. */
function createUse(seconds: () => number, onIdle: () => void) {
  let using = 0
  let timer: NodeJS.Timeout | undefined
  const stop = () => clearTimeout(timer)

  function watch(): void {
    stop()
    if (seconds() > 0 && using === 0) timer = setTimeout(onIdle, seconds() * 1000).unref()
  }

  return {
    enter() {
      using++
      stop()
      let left = false
      return () => {
        if (left) return
        left = true
        using--
        watch()
      }
    },
    watch,
    stop,
  }
}

const stillLoading = () =>
  new ApiError(503, 'the model is still being loaded; try again in a moment', { code: 'model_loading', retryAfter: 5 })

const messageOf = (error: unknown): unknown => (error instanceof Error ? error.message : error)
