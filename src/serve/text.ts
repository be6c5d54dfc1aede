// From tokens that come one at a time to text that only grows: whole characters, and never past a stop string.
// Knows neither models nor HTTP.

export interface TextStream {
  /** Takes the next token. `text` is what became certain; with `stopped` it is the last, and no token may follow. */
  push(id: number): { text: string; stopped: boolean }
  /** The rest, which waited for a character to end or for a stop string that did not come. */
  end(): string
}

const REPLACEMENT = '\ufffd'

/**
 * `decode` gives the text of ids. A token's text may depend on the one before it (a leading space), so tokens are decoded
 * with those that are already out; an unfinished character decodes to U+FFFD and waits for the tokens that end it.
 */
export function createTextStream(decode: (ids: number[]) => string, stop: readonly string[] = []): TextStream {
  // Tokens whose text is out but which the next ones are decoded after, then those whose text waits.
  let context: number[] = []
  let waiting: number[] = []
  // Text that might be the beginning of a stop string.
  let held = ''

  function take(fresh: string): { text: string; stopped: boolean } {
    held += fresh
    const found = stop.map((text) => held.indexOf(text)).filter((index) => index !== -1)
    if (found.length > 0) {
      const text = held.slice(0, Math.min(...found))
      held = ''
      waiting = []
      return { text, stopped: true }
    }
    const keep = Math.max(0, ...stop.map((text) => overlap(held, text)))
    const text = held.slice(0, held.length - keep)
    held = held.slice(held.length - keep)
    return { text, stopped: false }
  }

  function decodeWaiting(): string {
    return decode([...context, ...waiting]).slice(decode(context).length)
  }

  return {
    push(id) {
      waiting.push(id)
      const fresh = decodeWaiting()
      if (fresh === '' || fresh.endsWith(REPLACEMENT)) return { text: '', stopped: false }
      context = waiting
      waiting = []
      return take(fresh)
    },
    end() {
      const { text, stopped } = take(waiting.length > 0 ? decodeWaiting() : '')
      waiting = []
      return stopped ? text : text + held
    },
  }
}

/** Length of the longest proper beginning of `pattern` that `text` ends with. */
export function overlap(text: string, pattern: string): number {
  for (let length = Math.min(text.length, pattern.length - 1); length > 0; length--)
    if (text.endsWith(pattern.slice(0, length))) return length
  return 0
}
