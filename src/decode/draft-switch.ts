// Whether drafts pay where texts share forwards: it is tried, and measured in tokens per second of all of them.

/** Milliseconds, and forwards of each text, that a way is measured at a time: whichever is longer. */
const EPOCH = 60
const EPOCH_FORWARDS = 6
/** Milliseconds between forwards from which on nothing was being written. */
const PAUSE = 200
/**
 * Epochs after which the slower way is tried again, as texts change: after `FIRST_TRIAL`, and after twice as many each time that
 * it is still slower.
 */
const FIRST_TRIAL = 24
const LAST_TRIAL = 192
/** How fast the speed of the way in use follows what is measured. */
const SPEED_STEP = 0.3

type Way = 'drafting' | 'plain'

export interface DraftSwitch {
  /** Whether texts that share forwards should draft now. */
  drafting(): boolean
  /** A forward of one of `sequences` texts brought so many tokens. */
  observe(tokens: number, sequences: number): void
}

/** What is known of about so many texts at a time. */
interface Known {
  way: Way
  /** Whether `way` is the slower one, as far as known, and tried again. */
  trying: boolean
  /** Tokens per millisecond. */
  speeds: Partial<Record<Way, number>>
  /** Epochs since the last trial, and after how many the next one is due. */
  since: number
  trial: number
  /** Of the epoch so far: time in milliseconds, tokens, and forwards of all texts. */
  elapsed: number
  tokens: number
  forwards: number
}

const unknown = (way: Way): Known => ({
  way,
  trying: false,
  speeds: {},
  since: 0,
  trial: FIRST_TRIAL,
  elapsed: 0,
  tokens: 0,
  forwards: 0,
})

/** Takes turns with and without drafts, then keeps to the faster way. `now` is in milliseconds. */
export function createDraftSwitch(now: () => number = () => performance.now()): DraftSwitch {
  /** By the power of two that the number of texts is near. */
  const loads = new Map<number, Known>()
  let known = unknown('drafting')
  let last = now()

  return {
    drafting: () => known.way === 'drafting',
    observe(tokens, sequences) {
      const time = now()
      const size = Math.round(Math.log2(sequences))
      const here = loads.get(size) ?? unknown(known.way)
      loads.set(size, here)
      const gap = time - last
      last = time
      // A pause is nobody's time, nor is a change of load.
      const counts = here === known && gap <= PAUSE
      known = here
      if (!counts) return
      known.elapsed += gap
      known.tokens += tokens
      known.forwards++
      if (known.elapsed < EPOCH || known.forwards < EPOCH_FORWARDS * sequences) return
      endEpoch(known)
    },
  }
}

/** Takes what the epoch has measured, and chooses the way of the next one. */
function endEpoch(known: Known): void {
  const { way, trying, speeds } = known
  const measured = known.tokens / known.elapsed
  known.elapsed = known.tokens = known.forwards = 0
  const other: Way = way === 'drafting' ? 'plain' : 'drafting'
  const before = speeds[way]
  const own = trying || before === undefined ? measured : before + SPEED_STEP * (measured - before)
  speeds[way] = own
  known.since++
  const isSlower = speeds[other] === undefined || speeds[other] > own
  if (trying) {
    known.trial = isSlower ? Math.min(LAST_TRIAL, 2 * known.trial) : FIRST_TRIAL
    known.since = 0
  }
  const isDue = !trying && known.since >= known.trial
  if (isSlower || isDue) known.way = other
  known.trying = !isSlower && isDue
}
