// A fair queue for the places of a model: clients take turns, each in its own order, and none can take all places or all the
// room to wait. Knows neither models nor HTTP.
import { ApiError } from './errors.ts'

export interface QueueOptions {
  /** Sequences that run at a time. */
  concurrency: number
  /** Sequences that may wait. */
  limit: number
  /** Seconds that one may wait. */
  seconds: number
}

export interface Queue {
  readonly running: number
  readonly waiting: number
  /** Throws 429 if `count` more sequences of a client find no room: it may take half of what others leave of it. */
  admit(client: string, count: number): void
  /** Waits for a place. Rejects with the signal's reason, or with 429 after the longest wait. `release` gives it back. */
  acquire(client: string, signal: AbortSignal): Promise<() => void>
  /** Sends everyone away who waits. */
  clear(error: Error): void
}

/** Rest after work that holds up a thread, in times of how long it took. */
const REST = 3

/** Gives a place back after a rest from the work since `since`, a time of `performance.now()`: the thread is left to others. */
export const afterRest = (release: () => void, since: number): void =>
  void setTimeout(release, REST * (performance.now() - since))

/** How long a client that has no request counts as one that comes back, in ms. */
const RECENT = 60_000

interface Waiting {
  start(): void
  fail(error: unknown): void
}

export function createQueue({ concurrency, limit, seconds }: QueueOptions): Queue {
  /** Those who wait, by client; the first key is next, and goes to the end when it has had its turn. */
  const clients = new Map<string, Waiting[]>()
  /** Places that each client holds. */
  const held = new Map<string, number>()
  /** When each client last asked for a place or gave one back, the latest at the end. */
  const seen = new Map<string, number>()
  let running = 0
  let waiting = 0
  /** Moving average of the time that a place is held. */
  let average = 1

  const retryAfter = () => Math.min(60, Math.max(1, Math.ceil((average * (running + waiting)) / concurrency)))

  const heldBy = (client: string) => held.get(client) ?? 0

  function note(client: string): void {
    const now = performance.now()
    seen.delete(client)
    seen.set(client, now)
    for (const [other, time] of seen) {
      if (now - time < RECENT || held.has(other)) break
      seen.delete(other)
    }
  }

  /** Most places of a client: beside others half of what they leave, so that there is a place for whoever comes next. */
  function most(client: string): number {
    const isAlone = seen.size - Number(seen.has(client)) === 0
    if (isAlone) return concurrency - Math.floor(concurrency / 8)
    return Math.max(1, Math.ceil((concurrency - (running - heldBy(client))) / 2))
  }

  function next(): void {
    while (running < concurrency) {
      const turn = [...clients].find(([client]) => heldBy(client) < most(client))
      if (!turn) return
      const [client, line] = turn
      const first = line.shift()!
      clients.delete(client)
      if (line.length > 0) clients.set(client, line)
      waiting--
      first.start()
    }
  }

  function remove(client: string, entry: Waiting): void {
    const line = clients.get(client)
    const index = line?.indexOf(entry) ?? -1
    if (!line || index === -1) return
    line.splice(index, 1)
    waiting--
    if (line.length === 0) clients.delete(client)
  }

  function place(client: string): () => void {
    running++
    held.set(client, heldBy(client) + 1)
    const since = performance.now()
    let released = false
    return () => {
      if (released) return
      released = true
      running--
      if (heldBy(client) > 1) held.set(client, heldBy(client) - 1)
      else held.delete(client)
      note(client)
      average += 0.1 * ((performance.now() - since) / 1000 - average)
      next()
    }
  }

  return {
    get running() {
      return running
    },
    get waiting() {
      return waiting
    },
    admit(client, count) {
      const own = clients.get(client)?.length ?? 0
      const room = Math.ceil((limit - (waiting - own)) / 2)
      const places = Math.min(concurrency - running, most(client) - heldBy(client))
      if (own + count > room + Math.max(0, places))
        throw new ApiError(
          429,
          `the server is busy: ${running} sequences run and ${waiting} wait, ${own} of them yours`,
          {
            code: 'queue_full',
            retryAfter: retryAfter(),
          },
        )
    },
    acquire(client, signal) {
      if (signal.aborted) return Promise.reject(signal.reason)
      note(client)
      return new Promise((resolve, reject) => {
        const settle = () => {
          clearTimeout(timer)
          signal.removeEventListener('abort', abort)
        }
        const entry: Waiting = {
          start() {
            settle()
            resolve(place(client))
          },
          fail(error) {
            settle()
            remove(client, entry)
            reject(error)
          },
        }
        const abort = () => entry.fail(signal.reason)
        const timer = setTimeout(
          () =>
            entry.fail(
              new ApiError(429, `no place became free within ${seconds} s`, {
                code: 'queue_timeout',
                retryAfter: retryAfter(),
              }),
            ),
          seconds * 1000,
        )
        signal.addEventListener('abort', abort, { once: true })
        const line = clients.get(client)
        if (line) line.push(entry)
        else clients.set(client, [entry])
        waiting++
        next()
      })
    },
    clear(error) {
      for (const entry of [...clients.values()].flat()) entry.fail(error)
    },
  }
}
