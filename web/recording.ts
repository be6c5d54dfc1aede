// What a generation did, step by step, and what it looks like after any of its steps. Knows no page.

/** A token that a step decided, as the server reports it. */
export interface TokenEvent {
  /** Index in the answer, or in the text that is revised. */
  position: number
  text: string
  /** Number of the forward, from 0. */
  step: number
  /** Probability when it was decided. */
  confidence: number
  edited?: true
}

export interface Recording {
  /** Events of each forward; a forward may decide nothing. */
  steps: TokenEvent[][]
  /** Of a text that is revised: its tokens as given. */
  layout?: readonly { text: string; hole?: number }[]
  /** Blocks start at multiples of `blockSize` from the start of the prompt; unknown for autoregressive models. */
  blockSize?: number
  promptTokens: number
  /** Most tokens of the answer; less once its end is known. */
  most: number
}

export interface Cell {
  kind: 'masked' | 'given' | 'token'
  text: string
  /** From here on for `token`. */
  confidence?: number
  /** Number of the step that decided it, from 1. */
  step?: number
  /** What it replaced. */
  before?: string
}

export function createRecording(most: number, blockSize?: number): Recording {
  return { steps: [], promptTokens: 0, most, ...(blockSize === undefined ? {} : { blockSize }) }
}

export function record(recording: Recording, events: readonly TokenEvent[]): void {
  for (const event of events) {
    while (recording.steps.length <= event.step) recording.steps.push([])
    recording.steps[event.step]!.push(event)
  }
}

/** The positions after `count` steps: 0 is before the first. */
export function cellsAt({ steps, layout, blockSize = 1, promptTokens, most }: Recording, count: number): Cell[] {
  const cells: Cell[] = (layout ?? []).map(({ text, hole }) => ({
    kind: hole === undefined ? 'given' : 'masked',
    text,
  }))
  const extend = (length: number) => {
    while (cells.length < length) cells.push({ kind: 'masked', text: '' })
  }
  const open = (last: number) => {
    const end = Math.ceil((promptTokens + last + 1) / blockSize) * blockSize - promptTokens
    if (!layout) extend(Math.min(most, blockSize === 1 ? last + 1 : end))
  }
  if (blockSize > 1) open(0)
  for (const [index, events] of steps.slice(0, count).entries())
    for (const { position, text, confidence } of events) {
      if (position >= most) continue
      open(position)
      const old = cells[position]
      if (!old) continue
      cells[position] = {
        ...{ kind: 'token', text, confidence, step: index + 1 },
        ...(old.kind === 'masked' ? {} : { before: old.kind === 'token' ? (old.before ?? old.text) : old.text }),
      }
    }
  return cells
}

/** Confidence as one of five levels, 0 being the least sure. */
export function levelOf(confidence: number): 0 | 1 | 2 | 3 | 4 {
  if (confidence >= 0.95) return 4
  if (confidence >= 0.8) return 3
  if (confidence >= 0.5) return 2
  return confidence >= 0.3 ? 1 : 0
}

export const levelNames = ['under 30 %', '30 to 50 %', '50 to 80 %', '80 to 95 %', '95 % and more'] as const
