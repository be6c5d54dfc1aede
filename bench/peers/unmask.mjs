// unmask's side of `bench decode --peer`, as its users run it: the built package, without a loader for TypeScript. Answers
// "load" with seconds, "ar" with tokens a second of greedy decoding and "forward N" with the milliseconds of a block of N
// positions, all of them predicted.
import { createInterface } from 'node:readline'
import { loadForInference } from '../../dist/checkpoint/load.js'
import { createForward } from '../../dist/decode/forward.js'
import { createExecutor } from '../../dist/runtime/onnxruntime/executor.js'

const [source, threads, tokens] = process.argv.slice(2)
const executor = createExecutor({ threads: Number(threads) })
const prompt = Array.from({ length: 17 }, (_, i) => 1000 + 37 * i)
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
say({ name: 'unmask' })

let forward
let cache
async function load() {
  const start = performance.now()
  const { model, parameters } = await loadForInference(source)
  forward = await createForward(executor, model, parameters, [])
  cache = forward.createCache()
  await forward.run(cache, { ids: prompt.slice(0, 4), blockSize: 1, rows: [], store: 4 })
  return { seconds: (performance.now() - start) / 1000 }
}

/** One token after another, each the most probable one, from the cache of the prompt. */
async function decode() {
  const own = forward.createCache()
  const next = async (ids) =>
    (await forward.run(own, { ids, blockSize: 1, rows: [ids.length - 1], store: ids.length })).tokens[0]
  let token = await next(prompt)
  const start = performance.now()
  for (let i = 0; i < Number(tokens); i++) token = await next([token])
  const seconds = (performance.now() - start) / 1000
  await own.free()
  return { speed: Number(tokens) / seconds }
}

async function block(length) {
  const ids = Array.from({ length }, () => 1000 + Math.floor(3000 * Math.random()))
  const rows = ids.map((_, i) => i)
  const start = performance.now()
  await forward.run(cache, { ids, blockSize: length, rows, store: 0 })
  return { milliseconds: performance.now() - start }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, count] = line.trim().split(' ')
  say(command === 'load' ? await load() : command === 'ar' ? await decode() : await block(Number(count)))
}
await executor.dispose()
