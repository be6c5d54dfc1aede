// The models of a server: each with a process and a queue of its own. Loads them when needed, unloads idle ones, starts again
// what crashed, and exchanges a process without losing work. Knows no HTTP.
import { defaultName, type Limits, type ModelConfig, type ServeConfig } from './config.ts'
import { ApiError } from './errors.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createQueue, type Queue } from './scheduler.ts'
import { type ModelWorker, startWorker, workerGone } from './worker/host.ts'

export type ModelState = 'unloaded' | 'loading' | 'ready' | 'restarting' | 'failed'

export interface ServedModel {
  readonly name: string
  readonly aliases: readonly string[]
  readonly created: number
  readonly state: ModelState
  /** Undefined while no process is ready. */
  readonly worker: ModelWorker | undefined
  readonly queue: Queue
  /** Throws 503 while the model's process starts again after it crashed, so that no client waits for a crash to repeat. */
  check(): void
  /** The process, loaded if need be. Throws 503 where it cannot be loaded. */
  ready(): Promise<ModelWorker>
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

  return {
    find(name) {
      if (name === undefined || name === null) return models[0]!
      const found = models.find((model) => model.name === name || model.aliases.includes(name))
      if (found) return found
      throw new ApiError(404, `there is no model of that name; GET /v1/models lists them`, {
        code: 'model_not_found',
        param: 'model',
      })
    },
    list: () => models,
    async preload() {
      await Promise.all(models.filter((model) => model.settings.preload).map((model) => model.load()))
    },
    async reload(next) {
      const old = models
      models = next.models.map((settings) => {
        const same = old.find((model) => model.name === (settings.name ?? defaultName(settings.path)))
        return same ?? createModel(settings, config, options)
      })
      await Promise.all(old.filter((model) => !models.includes(model)).map((model) => model.close(false)))
      await Promise.all(models.map((model, index) => model.reload(next.models[index]!)))
    },
    async close(now) {
      await Promise.all(models.map((model) => model.close(now)))
    },
  }
}

/** Pauses before a process that keeps crashing is started again, in seconds. */
const PAUSES = [0, 1, 2, 5, 10, 30]
/** A process that lived so long counts as having been well. */
const WELL_MS = 60_000

function createModel(initial: ModelConfig, config: { limits: Limits; threads: number }, { log, metrics }: Options) {
  let settings = initial
  const name = initial.name ?? defaultName(initial.path)
  const { limits, threads } = config
  const queue = createQueue({ concurrency: limits.concurrency, limit: limits.queue, seconds: limits.queue_seconds })
  let state: ModelState = 'unloaded'
  let worker: ModelWorker | undefined
  let loading: Promise<ModelWorker> | undefined
  let closed = false
  let using = 0
  let idle: NodeJS.Timeout | undefined
  let crashes = 0

  const start = () =>
    startWorker(
      {
        path: settings.path,
        ...(settings.mode ? { mode: settings.mode } : {}),
        ...(settings.adapter ? { adapter: settings.adapter } : {}),
        ...(settings.block_size ? { blockSize: settings.block_size } : {}),
        ...(settings.prefix_cache > 0 ? { keepPrefixes: settings.prefix_cache } : {}),
        ...(threads > 0 ? { threads } : {}),
      },
      { onInternalError: (message) => log.error({ model: name, message }, 'model process') },
    )

  /** Makes a process the one that gets the work, and watches it. */
  function adopt(fresh: ModelWorker): ModelWorker {
    worker = fresh
    state = 'ready'
    const since = performance.now()
    log.info({ model: name, pid: fresh.pid, mode: fresh.info.mode }, 'model ready')
    void fresh.gone.then(() => {
      if (worker !== fresh) return
      worker = undefined
      if (closed) return
      metrics.restarts.inc({ model: name })
      if (performance.now() - since > WELL_MS) crashes = 0
      log.error({ model: name, pid: fresh.pid, crashes }, 'model process ended; starting it again')
      void restart()
    })
    restIdle()
    return fresh
  }

  async function restart(): Promise<void> {
    state = 'restarting'
    loading = (async () => {
      for (;;) {
        const pause = PAUSES[Math.min(crashes++, PAUSES.length - 1)]!
        await new Promise((resolve) => setTimeout(resolve, pause * 1000).unref())
        if (closed) throw workerGone()
        try {
          return adopt(await start())
        } catch (error) {
          log.error({ model: name, message: error instanceof Error ? error.message : error }, 'model cannot be loaded')
        }
      }
    })()
    // Those who wait hear of it; without any it is no unhandled rejection.
    await loading.catch(() => {})
    loading = undefined
  }

  function load(): Promise<ModelWorker> {
    if (worker) return Promise.resolve(worker)
    if (loading) return loading
    if (closed) return Promise.reject(workerGone())
    state = 'loading'
    loading = start()
      .then(adopt)
      .catch((error) => {
        state = 'failed'
        throw error
      })
      .finally(() => {
        loading = undefined
      })
    return loading
  }

  function restIdle(): void {
    clearTimeout(idle)
    if (settings.idle_seconds === 0 || using > 0 || !worker) return
    idle = setTimeout(() => {
      if (using > 0 || !worker) return
      const resting = worker
      worker = undefined
      state = 'unloaded'
      log.info({ model: name, pid: resting.pid }, 'model unloaded')
      void resting.close()
    }, settings.idle_seconds * 1000)
    idle.unref()
  }

  return {
    name,
    created: Math.floor(Date.now() / 1000),
    queue,
    get aliases() {
      return settings.aliases
    },
    get settings() {
      return settings
    },
    get state() {
      return state
    },
    get worker() {
      return worker
    },
    check() {
      if (closed || state === 'restarting') throw workerGone()
    },
    async ready() {
      try {
        return await load()
      } catch (error) {
        if (error instanceof ApiError) throw error
        // Its text may hold paths, so it is for the log.
        log.error({ model: name, message: error instanceof Error ? error.message : error }, 'model cannot be loaded')
        throw new ApiError(503, 'the model cannot be loaded; the log of the server says why', {
          code: 'model_unavailable',
          retryAfter: 30,
        })
      }
    },
    enter() {
      using++
      clearTimeout(idle)
      let left = false
      return () => {
        if (left) return
        left = true
        using--
        restIdle()
      }
    },
    load,
    /** Exchanges the process if there is one. Where the new one cannot be loaded the old one stays. */
    async reload(next: ModelConfig) {
      const before = settings
      settings = next
      if (!worker) return
      try {
        const fresh = await start()
        const old = worker
        adopt(fresh)
        // It finishes what it has begun.
        void old?.close()
      } catch (error) {
        settings = before
        log.error({ model: name, message: error instanceof Error ? error.message : error }, 'model kept as it was')
      }
    },
    async close(now: boolean) {
      closed = true
      clearTimeout(idle)
      queue.clear(workerGone())
      await worker?.close(now)
    },
  }
}
