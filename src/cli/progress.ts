// Progress of work that can be counted, in one form for all commands: what is done, how much of it, and the time left.
import type { Display } from './display.ts'
import { duration, progressLine } from './format.ts'

export interface Counted {
  /** What is being done. */
  what: string
  done: number
  total: number
  /** What is counted, in the plural; part of `format` where numbers have units. */
  unit?: string
  /** How numbers are written; default all digits. */
  format?: (value: number) => string
  /** Part of the work that is done, 0 to 1. Default `done / total`. */
  share?: number
  /** What there is to say of the last one. */
  detail?: string
  /** Default: by the pace since the first report of `what`, before which there may be other work. */
  secondsLeft?: number
}

/** Shows reports on a display. @param now Milliseconds. */
export function countedProgress(
  display: Pick<Display, 'update'>,
  now: () => number = () => performance.now(),
): (state: Counted) => void {
  let first: { what: string; time: number; share: number } | undefined
  return (state) => {
    const { what, done, total } = state
    const share = state.share ?? (total > 0 ? done / total : 1)
    if (first?.what !== what || share <= first.share) first = { what, time: now(), share }
    const seconds = (now() - first.time) / 1000
    const left =
      state.secondsLeft ?? (share > first.share ? (seconds * (1 - share)) / (share - first.share) : undefined)
    const text = countedText(state, share < 1 ? left : undefined)
    display.update({ live: (width, colors) => progressLine(share, text, width, colors.cyan), plain: () => text })
  }
}

/** `rounding: 3 of 29 matrices, 12 s left`. */
function countedText({ what, done, total, unit, format = String, detail }: Counted, left: number | undefined): string {
  const counted = `${what}: ${format(done)} of ${format(total)}${unit ? ` ${unit}` : ''}`
  return [counted, ...(detail ? [detail] : []), ...(left === undefined ? [] : [`${duration(left)} left`])].join(', ')
}
