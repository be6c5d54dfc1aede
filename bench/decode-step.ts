// unmask's own contestant of `bench decode --peer`, in a process of its own: answers "load" with seconds, "ar" with tokens a
// second of greedy decoding and "forward N" with the milliseconds of a block of N positions, all of them predicted.

import type { Cache } from '../src/decode/cache.ts'
import { createForward, type Forward } from '../src/decode/forward.ts'
import { loadForInference } from '../src/load.ts'
import { createExecutor } from '../src/runtime/executor.ts'
import { serve } from './child.ts'

const [source, threads, tokens] = process.argv.slice(2)
const executor = createExecutor({ threads: Number(threads) })
const prompt = Array.from({ length: 17 }, (_, i) => 1000 + 37 * i)

async function load() {
  const { model, parameters } = await loadForInference(source)
  const forward = await createForward(executor, model, parameters, [])
  const cache = forward.createCache()
  await forward.run(cache, { ids: prompt.slice(0, 4), blockSize: 1, rows: [], store: 4 })
  return { model, forward, cache }
}

let loaded: { forward: Forward; cache: Cache } | undefined

/** One token after another, each the most probable one, from the cache of the prompt. */
async function decode(forward: Forward): Promise<number> {
  const cache = forward.createCache()
  const next = async (ids: readonly number[]) =>
    (await forward.run(cache, { ids, blockSize: 1, rows: [ids.length - 1], store: ids.length })).tokens[0]
  let token = await next(prompt)
  const start = performance.now()
  for (let i = 0; i < Number(tokens); i++) token = await next([token])
  const seconds = (performance.now() - start) / 1000
  await cache.free()
  return Number(tokens) / seconds
}

await serve('unmask', async (command) => {
  if (command === 'load') {
    const start = performance.now()
    loaded = await load()
    return { seconds: (performance.now() - start) / 1000 }
  }
  if (!loaded) throw new Error('not loaded')
  const { forward, cache } = loaded
  if (command === 'ar') return { speed: await decode(forward) }
  const length = Number(command.split(' ')[1])
  const ids = Array.from({ length }, () => 1000 + Math.floor(3000 * Math.random()))
  const rows = ids.map((_, i) => i)
  const start = performance.now()
  await forward.run(cache, { ids, blockSize: length, rows, store: 0 })
  return { milliseconds: performance.now() - start }
})
await executor.dispose()
