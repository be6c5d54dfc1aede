// The peer of `bench decode --peer`: node-llama-cpp on the CPU, from the folder that NODE_LLAMA_CPP names. Answers "load" with
// seconds, "ar" with tokens a second of greedy decoding and "forward N" with the milliseconds of processing N prompt tokens.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [modelPath, threads, tokens] = process.argv.slice(2)
const folder = process.env.NODE_LLAMA_CPP
const require = createRequire(join(folder, 'package.json'))
const { getLlama } = await import(pathToFileURL(require.resolve('node-llama-cpp')).href)
const { version } = require(join(folder, 'node_modules', 'node-llama-cpp', 'package.json'))
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
say({ name: `node-llama-cpp ${version}` })

let sequence
let prompt
async function load() {
  const start = performance.now()
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: Number(threads), logLevel: 'error' })
  const model = await llama.loadModel({ modelPath })
  const context = await model.createContext({ contextSize: 2048, threads: Number(threads), batchSize: 512 })
  sequence = context.getSequence()
  prompt = model.tokenize('The history of the steam engine begins in the first century when Hero of Alexandria')
  return { seconds: (performance.now() - start) / 1000 }
}

async function decode() {
  await sequence.clearHistory()
  let count = 0
  let start = 0
  for await (const _ of sequence.evaluate(prompt, { temperature: 0 })) {
    if (count++ === 0) start = performance.now()
    if (count > Number(tokens)) break
  }
  return { speed: (count - 1) / ((performance.now() - start) / 1000) }
}

async function processed(length) {
  await sequence.clearHistory()
  await sequence.evaluateWithoutGeneratingNewTokens(prompt.slice(0, 4))
  const ids = Array.from({ length }, () => 1000 + Math.floor(3000 * Math.random()))
  const start = performance.now()
  await sequence.evaluateWithoutGeneratingNewTokens(ids)
  return { milliseconds: performance.now() - start }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, count] = line.trim().split(' ')
  say(command === 'load' ? await load() : command === 'ar' ? await decode() : await processed(Number(count)))
}
process.exit(0)
