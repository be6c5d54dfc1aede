// Clients that leave their requests. Each request costs the thread that serves all, so whoever sends many and waits for none
// has to wait: otherwise it would take the time of the others. Knows no HTTP.
import { setTimeout as pause } from 'node:timers/promises'
import { ApiError } from './errors.ts'

/** Time between two requests of a client that leaves them, in ms: several times what one has cost the thread. */
const PAUSE = 5
/** Longest time that a request waits for its turn, in ms. */
const LONGEST = 1000

export interface Leavers {
  /** A client left a request that had begun. */
  left(client: string): void
  /**
   * Resolves when a request of the client may begin, which is decided when it comes. Rejects with the signal's reason, or with
   * 429 after the longest wait where that would be too late.
   */
  turn(client: string, signal: AbortSignal): Promise<void>
}

/** `now` in ms. `sleep` rejects when the signal is aborted. */
export function createLeavers(
  now: () => number = () => performance.now(),
  sleep: (ms: number, signal: AbortSignal) => Promise<unknown> = (ms, signal) => pause(ms, undefined, { signal }),
): Leavers {
  /** When the next request of a client may begin; what is over is dropped. */
  const next = new Map<string, number>()

  function delay(client: string): void {
    const time = now()
    for (const [other, begins] of next) {
      if (begins > time) break
      next.delete(other)
    }
    const begins = Math.min(time + LONGEST, Math.max(time, next.get(client) ?? 0) + PAUSE)
    next.delete(client)
    next.set(client, begins)
  }

  return {
    left: delay,
    async turn(client, signal) {
      const wait = (next.get(client) ?? 0) - now()
      if (!(wait > 0)) return
      const tooLong = wait > LONGEST - PAUSE
      if (!tooLong) delay(client)
      await sleep(tooLong ? LONGEST : wait, signal).catch(() => signal.throwIfAborted())
      // Not at once: an answer costs more than a request that is left while it waits.
      if (tooLong)
        throw new ApiError(429, 'too many requests of yours were left', { code: 'too_many_left', retryAfter: 1 })
    },
  }
}
