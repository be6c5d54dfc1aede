// The HTTP interface: what every request passes through, and which route answers it. Knows no sockets.
import { randomUUID } from 'node:crypto'
import { getConnInfo } from '@hono/node-server/conninfo'
import { Hono, type MiddlewareHandler } from 'hono'
import { cors } from 'hono/cors'
import { routePath } from 'hono/route'
import { secureHeaders } from 'hono/secure-headers'
import { createAuthenticator, createKeyLimits } from './auth.ts'
import type { ServeConfig } from './config.ts'
import { docsPage } from './docs-page.ts'
import { ApiError, internalError } from './errors.ts'
import { createHolds } from './holds.ts'
import { createLeavers } from './leavers.ts'
import { openApiDocument } from './openapi.ts'
import { addPlayground, playgroundHeaders, playgroundPaths } from './playground.ts'
import { chatRoute } from './routes/chat.ts'
import { completionsRoute } from './routes/completions.ts'
import {
  detokenize,
  getModel,
  health,
  listModels,
  metricsRoute,
  notFound,
  ready,
  tokenize,
  tokenizerInfo,
} from './routes/models.ts'
import { moderationsRoute } from './routes/moderations.ts'
import { responsesRoute } from './routes/responses.ts'
import { infillRoute, rewriteRoute } from './routes/revise.ts'
import type { Env, RouteContext } from './routes/settings.ts'
import { createQueue } from './scheduler.ts'
import { requestSpan } from './trace.ts'

/** Routes that reveal nothing about models or use, for probes and people: they need no key. */
const OPEN = new Set(['/health', '/ready', '/openapi.json', '/docs'])

export interface App {
  fetch: Hono<Env>['fetch']
  /** Answers no more with 200 on /ready. */
  stop(): void
}

export function createApp(config: ServeConfig, context: Omit<RouteContext, 'limits'>): App {
  const { log, metrics } = context
  const routes: RouteContext = { ...context, limits: config.limits }
  const holds = createHolds(config.limits.answer_bytes)
  const leavers = createLeavers()
  const reading = createQueue({
    concurrency: 1,
    limit: Number.POSITIVE_INFINITY,
    seconds: config.limits.queue_seconds,
  })
  let stopping = false
  const app = new Hono<Env>()

  app.use(async (c, next) => {
    const since = performance.now()
    const id = randomUUID()
    const gone = new AbortController()
    const { signal } = c.req.raw
    const leave = () => gone.abort(new ApiError(499, 'the client disconnected'))
    signal.addEventListener('abort', leave, { once: true })
    c.set('requestId', id)
    c.set('gone', gone)
    c.set('reading', reading)
    const span = requestSpan(c.req.method, c.req.raw.headers)
    c.set('trace', span.context)
    await next()
    // Streams are responses of their own, so it is set on what there is.
    c.header('x-request-id', id)
    const route = routePath(c, -1)
    const { status } = c.res
    const end = () => {
      // Node keeps the signal as long as the request, and the request would be kept by what the signal tells.
      signal.removeEventListener('abort', leave)
      const seconds = (performance.now() - since) / 1000
      metrics.requests.inc({ route, status })
      metrics.requestSeconds.observe({ route }, seconds)
      span.rename(`${c.req.method} ${route}`)
      span.end({ 'http.route': route, 'http.response.status_code': status, 'unmask.request_id': id }, status >= 500)
      const { method } = c.req
      log.info({ id, method, route, status, client: c.get('client'), ms: Math.round(seconds * 1000) }, 'request')
    }
    c.res = whenDone(c.res, end)
  })
  const apiHeaders = secureHeaders({
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      styleSrc: ["'unsafe-inline'"],
      frameAncestors: ["'none'"],
      baseUri: ["'none'"],
      formAction: ["'none'"],
    },
    xFrameOptions: 'DENY',
    // Whoever ends TLS in front of this server says that; without TLS the header means nothing.
    strictTransportSecurity: false,
  })
  app.use((c, next) => (playgroundPaths.has(c.req.path) ? playgroundHeaders : apiHeaders)(c, next))
  app.use(checkHost(config))
  if (config.cors_origins.length > 0) {
    // Another origin's page may read what is answered.
    app.use(async (c, next) => {
      await next()
      c.header('cross-origin-resource-policy', 'cross-origin')
    })
    app.use(
      cors({
        origin: config.cors_origins,
        allowMethods: ['GET', 'POST'],
        // Without a list every header that a page asks for: clients add names of their own (x-stainless-..., openai-...),
        // and no header but authorization, which the page has to know, lets anyone in.
        exposeHeaders: ['X-Request-Id', 'Retry-After'],
        maxAge: 600,
      }),
    )
  }
  app.use(authenticate(config))
  app.use(async (c, next) => {
    // What is only looked up costs little, and probes must not wait.
    if (c.req.method !== 'POST') return next()
    const { client, gone } = c.var
    await leavers.turn(client, gone.signal)
    gone.signal.addEventListener('abort', () => leavers.left(client), { once: true })
    await next()
  })
  app.use(async (c, next) => {
    const holding = holds.open(c.get('client'))
    c.set('holding', holding)
    const { outgoing } = c.env
    outgoing.once('close', holding.end)
    if (outgoing.closed) holding.end()
    await next()
  })
  app.use(async (c, next) => {
    if (stopping && c.req.method === 'POST')
      throw new ApiError(503, 'the server is stopping', { code: 'stopping', retryAfter: 5 })
    await next()
  })

  const document = openApiDocument()
  addPlayground(app)
  app.get('/health', health)
  app.get(
    '/ready',
    ready(routes, () => stopping),
  )
  app.get('/metrics', metricsRoute(routes))
  app.get('/openapi.json', (c) => c.json(document))
  app.get('/docs', (c) => c.html(docsPage(document)))
  app.get('/v1/models', listModels(routes))
  app.get('/v1/models/:model{.+}', getModel(routes))
  app.post('/v1/chat/completions', chatRoute(routes))
  app.post('/v1/completions', completionsRoute(routes))
  app.post('/v1/responses', responsesRoute(routes))
  app.post('/v1/moderations', moderationsRoute(routes))
  app.post('/v1/infill', infillRoute(routes))
  app.post('/v1/rewrite', rewriteRoute(routes))
  app.post('/tokenize', tokenize(routes))
  app.post('/detokenize', detokenize(routes))
  app.get('/tokenizer_info', tokenizerInfo(routes))
  app.notFound(notFound)
  app.onError((error, c) => {
    const answer = error instanceof ApiError ? error : internalError()
    // Nobody reads a 499: the client has disconnected.
    if (answer.status >= 500 && answer !== error) log.error({ err: error, id: c.get('requestId') }, 'internal error')
    if (answer.retryAfter !== undefined) c.header('retry-after', String(answer.retryAfter))
    if (answer.status === 401) c.header('www-authenticate', 'Bearer')
    return c.json(answer.body(), answer.status as 400)
  })

  return {
    fetch: app.fetch,
    stop() {
      stopping = true
    },
  }
}

/** Calls `end` once the body has been read or left. */
function whenDone(response: Response, end: () => void): Response {
  if (!response.body || !response.headers.get('content-type')?.startsWith('text/event-stream')) {
    end()
    return response
  }
  const reader = response.body.getReader()
  let ended = false
  const once = () => {
    if (!ended) end()
    ended = true
  }
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await reader.read()
      if (!done) return controller.enqueue(value)
      once()
      controller.close()
    },
    async cancel(reason) {
      once()
      await reader.cancel(reason)
    },
  })
  return new Response(body, response)
}

const LOOPBACK = ['localhost', '127.0.0.1', '[::1]']

/** Against DNS rebinding: a page's own name that resolves to this machine is no name of the server. */
function checkHost({ host, allowed_hosts }: ServeConfig): MiddlewareHandler {
  const loopback = ['localhost', '127.0.0.1', '::1'].includes(host)
  const allowed = allowed_hosts ?? (loopback ? LOOPBACK : undefined)
  return async (c, next) => {
    const name = (c.req.header('host') ?? '').replace(/:\d+$/, '').toLowerCase()
    if (allowed && !allowed.includes(name))
      throw new ApiError(403, 'this host name is not served; allowed_hosts lists those that are', {
        code: 'wrong_host',
      })
    await next()
  }
}

function authenticate({ api_keys }: ServeConfig): MiddlewareHandler<Env> {
  const authenticator = createAuthenticator(api_keys)
  const limits = createKeyLimits()
  return async (c, next) => {
    if (authenticator.open || OPEN.has(c.req.path) || playgroundPaths.has(c.req.path)) {
      c.set('client', getConnInfo(c).remote.address ?? 'unknown')
      return next()
    }
    const key = authenticator.identify(c.req.header('authorization'))
    c.set('client', key.name)
    const leave = limits.enter(key)
    // What a route throws is a response by now.
    await next()
    c.res = whenDone(c.res, leave)
  }
}
