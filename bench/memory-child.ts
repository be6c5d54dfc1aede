// The other side of `bench memory`: loads a model, and at "write" writes a text of at most so many tokens.
import { inspectCheckpoint, openCheckpoint, pull } from '../src/checkpoint/index.ts'
import { openModel } from '../src/text/open.ts'
import { serve } from './child.ts'

const [source, most, threads] = process.argv.slice(2) as [string, string, string]

await serve(source, async () => {
  const checkpoint = await openCheckpoint((await pull(source)).path)
  const { storedTypes } = await inspectCheckpoint(checkpoint, undefined)
  await checkpoint.close()
  const model = await openModel(source, { threads: Number(threads) })
  const writing = model.generate('The people of the United States', { maxNewTokens: Number(most) })
  for (;;) {
    const { done, value } = await writing.next()
    if (done) return { weightBytes: storedTypes.reduce((sum, { bytes }) => sum + bytes, 0), tokens: value.tokens }
  }
})
