// Fetching a model before a command uses it, with a bar.
import type { Context } from './context.ts'
import { bytes } from './format.ts'
import { countedProgress } from './progress.ts'

/** Fetches what is not on this machine yet, and shows how far it is. Throws UserError where it cannot be had. */
export async function fetchModel(
  { display, signal, whenStopped }: Pick<Context, 'display' | 'signal' | 'whenStopped'>,
  source: string,
  token?: string,
): Promise<{ path: string }> {
  const { pull } = await import('../checkpoint/index.ts')
  const counted = countedProgress(display)
  return pull(source, {
    signal,
    token,
    progress: (done, total, file) => {
      whenStopped('Stopping; what is downloaded is kept, and the same command goes on from there.')
      counted({ what: file, done, total, format: bytes })
    },
  })
}

/** Fetches a model that a training run begins with. */
export async function fetchForTraining(context: Context, source: string): Promise<void> {
  await fetchModel(context, source)
  context.display.done()
  context.whenStopped('Stopping; nothing is saved yet.')
}

/** Fetches a model, then says on a terminal that it is being loaded; `display.clear` takes that away. */
export async function fetchAndLoad(context: Context, source: string): Promise<void> {
  const { display } = context
  await fetchModel(context, source)
  display.done()
  context.whenStopped('Stopping; nothing is saved.')
  const text = `loading ${source} ...`
  if (display.live) display.update({ live: (_, colors) => colors.dim(text), plain: () => text })
}
