// Bytes of answers that a server holds until their clients have read them: bounded, and shared by client as the room to wait is.
// Knows no HTTP.
import { ApiError } from './errors.ts'

/** What one request holds. */
export interface Holding {
  /** Throws 429 where its client, or all together, hold too much. */
  add(bytes: number): void
  drop(bytes: number): void
  /** Drops all, and what is added later. */
  end(): void
}

export interface Holds {
  readonly bytes: number
  open(client: string): Holding
}

/** A client may hold half of what others leave of `most` bytes. */
export function createHolds(most: number): Holds {
  const byClient = new Map<string, number>()
  let total = 0

  function change(client: string, bytes: number): void {
    const left = (byClient.get(client) ?? 0) + bytes
    total += bytes
    if (left > 0) byClient.set(client, left)
    else byClient.delete(client)
  }

  return {
    get bytes() {
      return total
    },
    open(client) {
      let own = 0
      let ended = false
      const add = (bytes: number) => {
        own += bytes
        change(client, bytes)
      }
      return {
        add(bytes) {
          if (ended) return
          const held = byClient.get(client) ?? 0
          if (held + bytes > (most - (total - held)) / 2)
            throw new ApiError(
              429,
              'the answers that wait to be read need too much memory; ask for fewer choices, tokens or log-probabilities, or stream them',
              { code: 'answer_too_large', retryAfter: 5 },
            )
          add(bytes)
        },
        drop(bytes) {
          if (!ended) add(-Math.min(bytes, own))
        },
        end() {
          if (!ended) add(-own)
          ended = true
        },
      }
    },
  }
}
