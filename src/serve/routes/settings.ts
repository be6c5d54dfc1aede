// What the routes that generate share: who asks, limits of a request, and how a stream begins.
import type { HttpBindings } from '@hono/node-server'
import type { Limits } from '../config.ts'
import { ApiError, badRequest } from '../errors.ts'
import type { RunContext } from '../generation.ts'
import type { Holding } from '../holds.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import type { Models, ServedModel } from '../models.ts'
import type { Asker, Safety } from '../safety.ts'
import type { Queue } from '../scheduler.ts'
import type { SentEvent } from '../sse.ts'
import type { TraceContext } from '../trace.ts'

/** What a route works with. */
export interface RouteContext {
  models: Models
  limits: Limits
  metrics: Metrics
  log: Log
  safety: Safety
}

/** Hono's variables: set by the middleware in app.ts. */
export interface Env {
  Bindings: HttpBindings
  Variables: {
    requestId: string
    /** Name of the key, or the address. */
    client: string
    /** Aborted when the client disconnects. */
    gone: AbortController
    /** What its answers hold in memory. */
    holding: Holding
    /** Of the request's span. */
    trace: TraceContext
    /** Who reads a large body. */
    reading: Queue
  }
}

export const runContext = (
  { limits, metrics }: RouteContext,
  { client, gone, trace, holding }: Env['Variables'],
  streamed: boolean,
): RunContext => ({
  trace,
  holding,
  streamed,
  client,
  signal: gone.signal,
  seconds: limits.seconds,
  metrics,
})

/** Who asks, for what is judged. */
export const askerOf = ({ name }: ServedModel, { requestId, client }: Env['Variables']): Asker => ({
  request: requestId,
  client,
  model: name,
})

export const isSet = <T>(value: T | null | undefined): value is T => value !== null && value !== undefined

export const stopOf = (stop: string | string[] | null | undefined): string[] => [stop ?? []].flat()

/** Most tokens of an answer. Throws 400 where a client asks for more than the server gives. */
export function outputTokens(
  asked: number | null | undefined,
  byDefault: number,
  limits: Limits,
  param: string,
): number {
  const most = limits.output_tokens
  if (isSet(asked) && asked > most) throw badRequest(`${param}: at most ${most} tokens are generated here`, param)
  return Math.min(asked ?? byDefault, most)
}

/** Throws 400 where one request asks for more sequences than allowed. */
export function checkChoices(count: number, limits: Limits): void {
  if (count > limits.choices)
    throw badRequest(`prompts times n is ${count}; at most ${limits.choices} are possible`, 'n')
}

/**
 * Takes the first event before the response begins, so that what is wrong with a request is still reported by its status; an
 * error after that is an event, which OpenAI's clients raise.
 */
export async function startStream(
  events: AsyncGenerator<SentEvent, void>,
  log: Log,
): Promise<AsyncGenerator<SentEvent, void>> {
  const first = await events.next()
  async function* all(): AsyncGenerator<SentEvent, void> {
    try {
      if (first.done) return
      yield first.value
      yield* events
    } catch (error) {
      const failure =
        error instanceof ApiError
          ? error
          : new ApiError(500, 'the answer was cut off by an internal error', { code: 'internal_error' })
      if (failure !== error) log.error({ err: error }, 'stream')
      yield { data: JSON.stringify(failure.body()) }
    } finally {
      await events.return()
    }
  }
  return all()
}

/** Metadata of /v1/models. */
export const modelObject = ({ name, created, worker, state }: ServedModel) => ({
  id: name,
  object: 'model' as const,
  created,
  owned_by: 'unmask',
  ...(worker
    ? {
        max_model_len: worker.info.maxPositions,
        mode: worker.info.mode,
        block_size: worker.info.blockSize,
        chat: worker.info.chat,
      }
    : {}),
  state,
})
