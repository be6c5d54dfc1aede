// When a process that has ended is started again, and when no more. Knows no processes.

/** Seconds before each start, by how many went before it without a process that was well; the last repeats. */
const PAUSES = [0, 1, 2, 5, 10, 30]
/** Starts in a row after which a model is given up. */
const MOST = 10
/** A process that lived so long was well, in ms. */
const WELL_MS = 5000

export interface Restarts {
  /** Seconds to wait before the next start; undefined where the model is given up. */
  pause(): number | undefined
  /** A process has ended that lived for so many ms after it was loaded. */
  ended(ms: number): void
  /** The next start is the first. */
  clear(): void
}

export function createRestarts(): Restarts {
  let starts = 0
  return {
    pause: () => (starts < MOST ? PAUSES[Math.min(starts++, PAUSES.length - 1)] : undefined),
    ended(ms) {
      if (ms >= WELL_MS) starts = 0
    },
    clear() {
      starts = 0
    },
  }
}
