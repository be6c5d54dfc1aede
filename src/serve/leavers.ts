// Clients that leave their requests. Each request costs the thread that serves all, so whoever sends many and waits for none
// has to wait: otherwise it would take the time of the others. Knows no HTTP.
import { setTimeout as sleep } from 'node:timers/promises'

/** How long a left request holds up the next ones of its client, in ms: several times what it has cost the thread. */
const PAUSE = 5
/** Longest time that a client's requests wait for that, in ms. */
const LONGEST = 1000

export interface Leavers {
  /** A client left a request. */
  left(client: string): void
  /** Resolves when the client's next request may begin. Rejects with the signal's reason. */
  turn(client: string, signal: AbortSignal): Promise<void>
}

export function createLeavers(): Leavers {
  /** When the next request of a client may begin, as times of `performance.now()`; those that are over are dropped. */
  const until = new Map<string, number>()

  return {
    left(client) {
      const now = performance.now()
      for (const [other, time] of until) {
        if (time > now) break
        until.delete(other)
      }
      const time = Math.min(now + LONGEST, Math.max(now, until.get(client) ?? 0) + PAUSE)
      until.delete(client)
      until.set(client, time)
    },
    async turn(client, signal) {
      for (;;) {
        const wait = (until.get(client) ?? 0) - performance.now()
        if (!(wait > 0)) return
        await sleep(wait, undefined, { signal }).catch(() => signal.throwIfAborted())
      }
    },
  }
}
