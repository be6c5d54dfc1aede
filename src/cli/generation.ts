// Follows a generation and shows it: in place on a terminal, a line per step elsewhere.

import pc from 'picocolors'
import type { TextEvent, TextResult, Writing } from '../text/assemble.ts'
import type { Generator } from '../text/generator.ts'
import { createTextStream } from '../tokenizer/stream.ts'
import type { Colors, Context } from './context.ts'
import { createUnmaskView } from './unmask-view.ts'

export interface ShowOptions {
  context: Context
  generator: Pick<Generator, 'tokenizer' | 'blockSize'>
  /** Text before the generated one, and its tokens. */
  prompt: string
  promptIds: readonly number[]
  show: boolean
  /** Milliseconds that a step stays on the screen, so that eyes can follow. Default 0. */
  pause?: number
  onEvent?: (event: TextEvent) => void
}

const noColors = pc.createColors(false)

/** Runs a generation to its end. With `show`, masks and freshly committed tokens are drawn after every step. */
export async function showWriting(writing: Writing, options: ShowOptions): Promise<TextResult> {
  const { context, generator, prompt, promptIds, show, pause = 0, onEvent } = options
  const { display } = context
  const { tokenizer, blockSize } = generator
  const start = promptIds.length
  const view = createUnmaskView((index) => createTextStream(tokenizer, { after: index === 0 ? promptIds : [-1] }))

  async function draw({ step, committed }: TextEvent): Promise<void> {
    const last = committed.at(-1)
    if (!show || !last) return
    view.open((last.block + 1) * blockSize - start)
    view.commit(
      committed.map(({ position, token, confidence }) => ({ index: position - start, id: token, confidence })),
    )
    const text = (colors: Colors) => `${colors.dim(prompt)}${view.render(colors)}`
    if (display.live) display.update({ live: (_, colors) => text(colors), plain: () => text(noColors) })
    else display.line(`${String(step + 1).padStart(3)}  ${text(noColors)}`)
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause))
  }

  for (;;) {
    const { done, value } = await writing.next()
    if (done) {
      display.done()
      return value
    }
    onEvent?.(value)
    await draw(value)
  }
}
