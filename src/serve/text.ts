// From tokens that come one at a time to text that only grows and never passes a stop string. Knows neither models nor HTTP.
import { createTextStream } from '../tokenizer/stream.ts'
import type { Tokenizer } from '../tokenizer/types.ts'

export interface AnswerText {
  /** Takes the next token. `text` is what became certain; with `stopped` it is the last, and no token may follow. */
  push(id: number): { text: string; stopped: boolean }
  /** The rest, which waited for a character to end or for a stop string that did not come. */
  end(): string
}

export function createAnswerText(tokenizer: Pick<Tokenizer, 'decode'>, stop: readonly string[] = []): AnswerText {
  const stream = createTextStream(tokenizer)
  // Text that might be the beginning of a stop string.
  let held = ''

  function take(fresh: string): { text: string; stopped: boolean } {
    held += fresh
    const found = stop.map((text) => held.indexOf(text)).filter((index) => index !== -1)
    const keep = found.length > 0 ? held.length - Math.min(...found) : Math.max(0, ...stop.map((s) => overlap(held, s)))
    const text = held.slice(0, held.length - keep)
    held = held.slice(held.length - keep)
    return { text, stopped: found.length > 0 }
  }

  return {
    push: (id) => take(stream.push([id])),
    end() {
      const { text, stopped } = take(stream.end())
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
