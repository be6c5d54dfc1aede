// Turns of a model process's main thread: one at a time, clients in turns, and whatever has come in meanwhile between them. The
// thread hands every text's tokens on, so that slow work of one text would hold up all others.
import type { Turns } from '../../decode/index.ts'
import { createQueue } from '../scheduler.ts'

/** How long a turn is, in ms: little beside a forward. */
const LENGTH = 2

/** Turns of a client, until the signal is aborted. */
export function createTurns(): (client: string, signal: AbortSignal) => Turns {
  const queue = createQueue({ concurrency: 1, limit: Number.POSITIVE_INFINITY, seconds: 86_400 })
  return (client, signal) => ({
    async next() {
      const release = await queue.acquire(client, signal)
      let last: number | undefined
      return {
        // The clock runs from the first time that it is asked: by then what was broken off goes on.
        over() {
          last ??= performance.now() + LENGTH
          return performance.now() >= last
        },
        // What has come in is handled before the next turn begins.
        end: () => void setImmediate(release),
      }
    },
  })
}
