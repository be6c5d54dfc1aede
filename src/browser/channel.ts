// Questions to a worker and their answers, which may come in parts. Knows nothing about models.
import { UserError } from '../core/types.ts'
import { LoadError, type LoadReason } from './errors.ts'

type ToWorker<A> = { id: number; ask: A } | { id: number; abort: true }

type FromWorker = { id: number } & (
  | { part: unknown }
  | { done: unknown }
  | { error: { name: string; message: string; reason?: LoadReason } }
)

/** What of a `Worker`, and of its other side, is used. */
export interface Port<Out> {
  postMessage(message: Out): void
  addEventListener(type: 'message', listener: (event: MessageEvent) => void): void
}

export interface AskOptions {
  /** Rejects at once with the signal's reason; the worker ends what it does as soon as it can. */
  signal?: AbortSignal | undefined
  onPart?: (part: unknown) => void
}

export interface Channel<A> {
  /** Rejects with what the worker reports: UserError or LoadError where somebody can act on it. */
  ask(question: A, options?: AskOptions): Promise<unknown>
  /** The parts of an answer, then its end. Leaving the loop ends the work. */
  stream(question: A, signal?: AbortSignal): AsyncGenerator<unknown, unknown, void>
  /** Rejects all that waits, and all that will be asked. */
  fail(error: unknown): void
}

/** The page's side. */
export function createChannel<A>(port: Port<ToWorker<A>>): Channel<A> {
  const waiting = new Map<
    number,
    { part(value: unknown): void; resolve(value: unknown): void; reject(error: unknown): void }
  >()
  let next = 0
  let failed: { error: unknown } | undefined
  port.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => {
    const one = waiting.get(data.id)
    if (!one) return
    if ('part' in data) {
      one.part(data.part)
      return
    }
    waiting.delete(data.id)
    if ('done' in data) one.resolve(data.done)
    else one.reject(errorOf(data.error))
  })

  function ask(question: A, { signal, onPart = () => undefined }: AskOptions = {}): Promise<unknown> {
    if (failed) return Promise.reject(failed.error)
    if (signal?.aborted) return Promise.reject(signal.reason)
    const id = next++
    return new Promise((resolve, reject) => {
      const abort = () => {
        waiting.delete(id)
        port.postMessage({ id, abort: true })
        reject(signal!.reason)
      }
      const settled =
        <T>(settle: (value: T) => void) =>
        (value: T) => {
          signal?.removeEventListener('abort', abort)
          settle(value)
        }
      signal?.addEventListener('abort', abort, { once: true })
      waiting.set(id, { part: onPart, resolve: settled(resolve), reject: settled(reject) })
      port.postMessage({ id, ask: question })
    })
  }

  return {
    ask,
    async *stream(question, signal) {
      const leave = new AbortController()
      const parts: unknown[] = []
      let wake = () => {}
      let end: { value: unknown } | { error: unknown } | undefined
      const settle = (result: typeof end) => {
        end = result
        wake()
      }
      ask(question, {
        signal: signal ? AbortSignal.any([signal, leave.signal]) : leave.signal,
        onPart(part) {
          parts.push(part)
          wake()
        },
      }).then(
        (value) => settle({ value }),
        (error) => settle({ error }),
      )
      try {
        for (;;) {
          while (parts.length > 0) yield parts.shift()
          if (end && 'error' in end) throw end.error
          if (end) return end.value
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
      } finally {
        leave.abort()
      }
    },
    fail(error) {
      failed = { error }
      for (const { reject } of waiting.values()) reject(error)
      waiting.clear()
    },
  }
}

export interface Answering {
  signal: AbortSignal
  /** Sends a part of the answer. */
  part(value: unknown): void
}

/** The worker's side: answers questions, any number at the same time. */
export function answerQuestions<A>(
  port: Port<FromWorker>,
  answer: (question: A, answering: Answering) => Promise<unknown>,
): void {
  const running = new Map<number, AbortController>()
  port.addEventListener('message', async ({ data }: MessageEvent<ToWorker<A>>) => {
    const { id } = data
    if ('abort' in data) {
      running.get(id)?.abort()
      return
    }
    const controller = new AbortController()
    running.set(id, controller)
    try {
      const done = await answer(data.ask, {
        signal: controller.signal,
        part: (part) => port.postMessage({ id, part }),
      })
      port.postMessage({ id, done })
    } catch (error) {
      port.postMessage({ id, error: described(error) })
    } finally {
      running.delete(id)
    }
  })
}

function described(error: unknown): { name: string; message: string; reason?: LoadReason } {
  if (error instanceof LoadError) return { name: 'LoadError', message: error.message, reason: error.reason }
  const { name, message } = error instanceof Error ? error : { name: 'Error', message: String(error) }
  return { name: error instanceof UserError ? 'UserError' : name, message }
}

function errorOf({ name, message, reason }: { name: string; message: string; reason?: LoadReason }): Error {
  if (reason) return new LoadError(reason, message)
  if (name === 'UserError') return new UserError(message)
  return Object.assign(new Error(message), { name })
}
