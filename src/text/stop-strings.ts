// Ends a growing text before the first stop string, and holds back what may become one.

export interface StopFilter {
  /** Takes text. `text` is what became certain; with `stopped` it is the last, and none may follow. */
  push(text: string): { text: string; stopped: boolean }
  /** What was held back for a stop string that did not come. */
  end(): string
}

export function createStopFilter(stop: readonly string[]): StopFilter {
  let held = ''
  return {
    push(text) {
      held += text
      const found = stop.map((string) => held.indexOf(string)).filter((index) => index !== -1)
      const stopped = found.length > 0
      const certain = stopped ? Math.min(...found) : held.length - Math.max(0, ...stop.map((s) => overlap(held, s)))
      const given = held.slice(0, certain)
      held = stopped ? '' : held.slice(certain)
      return { text: given, stopped }
    },
    end: () => held,
  }
}

/** Length of the longest proper beginning of `pattern` that `text` ends with. */
export function overlap(text: string, pattern: string): number {
  for (let length = Math.min(text.length, pattern.length - 1); length > 0; length--)
    if (text.endsWith(pattern.slice(0, length))) return length
  return 0
}
