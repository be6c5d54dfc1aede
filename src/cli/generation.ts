// Follows a generation and shows it: in place on a terminal, a line per step elsewhere.

import pc from 'picocolors'
import type { TextEvent, TextResult, Writing } from '../text/assemble.ts'
import type { Generator } from '../text/generator.ts'
import { createTextStream } from '../tokenizer/stream.ts'
import type { Colors, Context } from './context.ts'
import { decimals } from './format.ts'
import { createUnmaskView } from './unmask-view.ts'

/** A text, and how it was generated. */
export interface Followed {
  text: string
  /** Undefined where it was stopped before its end. */
  result: TextResult | undefined
  /** Tokens that the forward over the prompt gave. */
  firstTokens: number
}

/** Runs a generation to its end, or until `signal` stops it: then what is written so far is kept. */
export async function follow(
  writing: Writing,
  signal: AbortSignal,
  onEvent: (event: TextEvent) => void | Promise<void>,
): Promise<Followed> {
  let text = ''
  let firstTokens: number | undefined
  try {
    for (;;) {
      const { done, value } = await writing.next()
      text = value.text
      if (done) return { text, result: value, firstTokens: firstTokens ?? 0 }
      firstTokens ??= value.committed.length
      await onEvent(value)
    }
  } catch (error) {
    if (!signal.aborted) throw error
    return { text, result: undefined, firstTokens: firstTokens ?? 0 }
  }
}

/** How much was generated, how fast once the prompt had been read, and how long that took. */
export function describeSpeed(
  { tokens, forwards, tpf, tps, seconds, prefillSeconds }: TextResult,
  firstTokens: number,
): string {
  const rest = tokens - firstTokens
  const decoding = rest > 0 ? rest / (seconds - prefillSeconds) : tps
  const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`
  return `${counted(tokens, 'token')} in ${counted(forwards, 'forward')}: ${decimals(tpf, 2)} tokens/forward, ${decimals(decoding, 1)} tokens/s, first after ${decimals(prefillSeconds, 2)} s`
}

export interface ShowOptions {
  context: Context
  generator: Pick<Generator, 'tokenizer' | 'blockSize' | 'mode'>
  /** Text before the generated one, and its tokens. */
  prompt: string
  promptIds: readonly number[]
  show: boolean
  /** Milliseconds that a step stays on the screen, so that eyes can follow. Default 0. */
  pause?: number
  onEvent?: (event: TextEvent) => void
}

const noColors = pc.createColors(false)

/** Follows a generation. With `show`, masks and freshly committed tokens are drawn after every step. */
export async function showWriting(writing: Writing, options: ShowOptions): Promise<Followed> {
  const { context, generator, prompt, promptIds, show, pause = 0, onEvent } = options
  const { display } = context
  const { tokenizer, blockSize, mode } = generator
  const start = promptIds.length
  const view = createUnmaskView((index) => createTextStream(tokenizer, { after: index === 0 ? promptIds : [-1] }))

  async function draw({ step, committed }: TextEvent): Promise<void> {
    const last = committed.at(-1)
    if (!show || !last) return
    // Other modes write from left to right: there are no places yet that wait for a token.
    if (mode === 'diffusion') view.open((last.block + 1) * blockSize - start)
    view.commit(
      committed.map(({ position, token, confidence }) => ({ index: position - start, id: token, confidence })),
    )
    const text = (colors: Colors) => `${colors.dim(prompt)}${view.render(colors)}`
    if (display.live) display.update({ live: (_, colors) => text(colors), plain: () => text(noColors) })
    else display.line(`${String(step + 1).padStart(3)}  ${text(noColors)}`)
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause))
  }

  const followed = await follow(writing, context.signal, async (event) => {
    onEvent?.(event)
    await draw(event)
  })
  display.done()
  return followed
}
