// A running server: sockets, models, reload and the orderly end. Knows nothing about flags or signals.
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import { UserError } from '../core/types.ts'
import { createApp } from './app.ts'
import type { ServeConfig } from './config.ts'
import { guardConnections } from './connections.ts'
import { createLog } from './log.ts'
import { createMetrics } from './metrics.ts'
import { createModels } from './models.ts'
import { createSafety } from './safety.ts'

export interface RunningServer {
  /** Where it listens: http://host:port. */
  url: string
  /** Process ids of the models that are loaded, by name. */
  processes(): Record<string, number>
  /** Loads the models anew, with the models of a changed configuration; its other settings need a new start. */
  reload(config: ServeConfig): Promise<void>
  /**
   * Takes no more requests, lets those that run end within `shutdown_seconds`, then breaks off the rest. Resolves when all
   * is ended.
   */
  close(): Promise<void>
}

/**
 * Listens and loads the models; /ready says when they are. Throws UserError if a model cannot be loaded or the port is not
 * free, or the signal's reason if it aborts before the models are loaded.
 */
export async function startServer(config: ServeConfig, signal?: AbortSignal): Promise<RunningServer> {
  const log = createLog(config.log_level)
  const metrics = createMetrics()
  const safety = await createSafety(config, { log, metrics, env: process.env })
  const models = createModels(config, { log, metrics })
  metrics.watch(models)
  const app = createApp(config, { models, log, metrics, safety })
  const { limits } = config
  const server = createAdaptorServer({
    fetch: app.fetch,
    // The library's own Request and Response would replace the global ones.
    overrideGlobalObjects: false,
    serverOptions: {
      requestTimeout: limits.body_seconds * 1000,
      headersTimeout: Math.min(10_000, limits.body_seconds * 1000),
      connectionsCheckingInterval: 1000,
      maxHeaderSize: 16_384,
      keepAliveTimeout: 30_000,
    },
  }) as Server
  server.maxConnections = limits.connections
  guardConnections(server, limits.body_seconds)

  const abort = () => void models.close(true)
  signal?.addEventListener('abort', abort, { once: true })
  try {
    // Who stopped it by now is not told again.
    signal?.throwIfAborted()
    // First what is known at once: whether the port can be had.
    await listen(server, config)
    await models.preload()
  } catch (error) {
    server.close()
    server.closeAllConnections()
    await models.close(true)
    await safety.close()
    signal?.throwIfAborted()
    throw error
  } finally {
    signal?.removeEventListener('abort', abort)
  }
  const { address, port, family } = server.address() as AddressInfo
  const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
  log.info({ url, models: models.list().map(({ name }) => name) }, 'listening')

  async function close(): Promise<void> {
    log.info('stopping')
    app.stop()
    const closed = new Promise<void>((resolve) => {
      server.close(() => resolve())
    })
    server.closeIdleConnections()
    // Those that finish leave idle connections behind.
    const sweep = setInterval(() => server.closeIdleConnections(), 100)
    const timeout = setTimeout(() => server.closeAllConnections(), config.shutdown_seconds * 1000)
    await closed
    clearInterval(sweep)
    clearTimeout(timeout)
    await models.close(true)
    await safety.close()
    log.info('stopped')
  }

  return {
    url,
    processes: () =>
      Object.fromEntries(models.list().flatMap(({ name, worker }) => (worker ? [[name, worker.pid]] : []))),
    async reload(next) {
      log.info('reloading models')
      await models.reload(next)
    },
    close,
  }
}

function listen(server: Server, { host, port }: ServeConfig): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason = { EADDRINUSE: 'another program has it', EACCES: 'not allowed', EADDRNOTAVAIL: 'no such address' }
      reject(new UserError(`cannot listen on ${host}:${port}: ${reason[error.code as 'EACCES'] ?? error.message}`))
    })
    server.listen(port, host, () => resolve())
  })
}
