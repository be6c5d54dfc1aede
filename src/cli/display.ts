// Progress on a stream: lines that are rewritten in place on a terminal, plain lines at intervals elsewhere.
// Knows nothing about what progresses.
import { createLogUpdate } from 'log-update'
import type { Colors } from './context.ts'
import { forTerminal } from './terminal.ts'

export interface Display {
  /** Whether `update` redraws in place. */
  live: boolean
  /** Shows the present state. On a terminal it replaces the last one; elsewhere it is printed when the interval is over. */
  update(state: { live: (width: number, colors: Colors) => string; plain: () => string }): void
  /** Prints a line that stays. */
  line(text: string): void
  /** Ends the live display and leaves its last state standing. */
  done(): void
  /** Ends the live display and removes it; elsewhere a state that has not been printed yet is dropped. */
  clear(): void
}

export interface DisplayOptions {
  quiet: boolean
  colors: Colors
  /** Seconds between plain lines; default 10. */
  interval?: number
  /** Milliseconds between redraws; default 80. */
  redraw?: number
  now?: () => number
}

export function createDisplay(stream: NodeJS.WriteStream, options: DisplayOptions): Display {
  const { quiet, colors, interval = 10, redraw = 80, now = () => performance.now() } = options
  if (quiet) return { live: false, update() {}, line() {}, done() {}, clear() {} }
  let last = Number.NEGATIVE_INFINITY
  if (!stream.isTTY || process.env.TERM === 'dumb') {
    let pending: (() => string) | undefined
    return {
      live: false,
      update({ plain }) {
        if (now() - last < interval * 1000) {
          pending = plain
          return
        }
        last = now()
        pending = undefined
        stream.write(`${plain()}\n`)
      },
      line(text) {
        stream.write(`${text}\n`)
      },
      done() {
        // The last state is worth a line even when the interval is not over.
        if (pending) stream.write(`${pending()}\n`)
        pending = undefined
        last = Number.NEGATIVE_INFINITY
      },
      clear() {
        pending = undefined
        last = Number.NEGATIVE_INFINITY
      },
    }
  }
  const log = createLogUpdate(stream)
  let current: (() => string) | undefined
  return {
    live: true,
    update({ live }) {
      current = () => live(stream.columns || 80, colors)
      if (now() - last < redraw) return
      last = now()
      log(forTerminal(current()))
    },
    line(text) {
      log.clear()
      stream.write(`${forTerminal(text)}\n`)
      if (current) log(forTerminal(current()))
    },
    done() {
      if (current) log(forTerminal(current()))
      log.done()
      current = undefined
      last = Number.NEGATIVE_INFINITY
    },
    clear() {
      log.clear()
      log.done()
      current = undefined
      last = Number.NEGATIVE_INFINITY
    },
  }
}
