// Whether drafts pay where texts share forwards: it is tried, and measured in tokens per second of all of them.

/** Milliseconds that a way is measured at a time. */
const EPOCH = 200
/** Epochs after which the slower way is tried again: texts and load change. */
const TRIAL = 24

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
  /** Tokens per millisecond, and the epoch in which they were measured. */
  speeds: Partial<Record<Way, { value: number; epoch: number }>>
  epoch: number
  /** Of the epoch so far: time in milliseconds, and tokens. */
  elapsed: number
  tokens: number
}

/** Takes turns with and without drafts, then keeps to the faster way. `now` is in milliseconds. */
export function createDraftSwitch(now: () => number = () => performance.now()): DraftSwitch {
  /** By the power of two that the number of texts is near. */
  const loads = new Map<number, Known>()
  const unknown = (way: Way): Known => ({ way, speeds: {}, epoch: 0, elapsed: 0, tokens: 0 })
  let known = unknown('drafting')
  let last = now()

  function nextWay({ way, speeds, epoch }: Known): Way {
    const other: Way = way === 'drafting' ? 'plain' : 'drafting'
    const measured = speeds[other]
    if (!measured || epoch - measured.epoch >= TRIAL) return other
    return measured.value > speeds[way]!.value ? other : way
  }

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
      const counts = here === known && gap <= EPOCH
      known = here
      if (!counts) return
      known.elapsed += gap
      known.tokens += tokens
      if (known.elapsed < EPOCH) return
      known.speeds[known.way] = { value: known.tokens / known.elapsed, epoch: known.epoch }
      known.epoch++
      known.way = nextWay(known)
      known.elapsed = 0
      known.tokens = 0
    },
  }
}
