// Follows a generation and shows it: in place on a terminal, a line per step elsewhere.

import pc from 'picocolors'
import type { DecodeStep, Generation, GenerationResult } from '../decode/index.ts'
import type { Colors, Context } from './context.ts'
import { createUnmaskView } from './unmask-view.ts'

export interface ShowOptions {
  context: Context
  /** Text before the generated one. */
  prompt: string
  promptTokens: number
  blockSize: number
  decode: (ids: number[]) => string
  show: boolean
  /** Milliseconds that a step stays on the screen, so that eyes can follow. Default 0. */
  pause?: number
  onStep?: (step: DecodeStep) => void
}

const noColors = pc.createColors(false)

/** Runs a generation to its end. With `show`, masks and freshly committed tokens are drawn after every step. */
export async function showGeneration(generation: Generation, options: ShowOptions): Promise<GenerationResult> {
  const { context, prompt, promptTokens, blockSize, decode, show, pause = 0, onStep } = options
  const { display } = context
  const view = createUnmaskView(decode)

  async function draw({ step, tokens }: DecodeStep): Promise<void> {
    const last = tokens.at(-1)
    if (!show || !last) return
    view.open((last.block + 1) * blockSize - promptTokens)
    view.commit(
      tokens.map(({ position, token, confidence }) => ({ index: position - promptTokens, id: token, confidence })),
    )
    const text = (colors: Colors) => `${colors.dim(prompt)}${view.render(colors)}`
    if (display.live) display.update({ live: (_, colors) => text(colors), plain: () => text(noColors) })
    else display.line(`${String(step + 1).padStart(3)}  ${text(noColors)}`)
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause))
  }

  for (;;) {
    const { done, value } = await generation.next()
    if (done) {
      display.done()
      return value
    }
    onStep?.(value)
    await draw(value)
  }
}
