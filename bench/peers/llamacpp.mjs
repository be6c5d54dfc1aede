// The peer of `bench decode --peer` and `bench jobs --peer`: node-llama-cpp on the CPU, from the folder that NODE_LLAMA_CPP names.
// Answers "load" with seconds, "ar" with tokens a second of greedy decoding, "forward N" with the milliseconds of processing N
// prompt tokens, and "write MOST LOOKUP ID,ID,...;ID,..." with the greedy tokens behind each prompt, written at the same time, and
// the seconds they took; LOOKUP is the most tokens that its InputLookupTokenPredictor drafts at a time, 0 for none.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [modelPath, threads, tokens] = process.argv.slice(2)
const folder = process.env.NODE_LLAMA_CPP
const require = createRequire(join(folder, 'package.json'))
const library = await import(pathToFileURL(require.resolve('node-llama-cpp')).href)
const { getLlama } = library
const { version } = require(join(folder, 'node_modules', 'node-llama-cpp', 'package.json'))
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
say({ name: `node-llama-cpp ${version}` })

let sequence
let prompt
/** For writing, by the most tokens that are drafted and the number of texts: a predictor belongs to its sequence. */
const writers = new Map()
let model
async function load() {
  const start = performance.now()
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: Number(threads), logLevel: 'error' })
  model = await llama.loadModel({ modelPath })
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

/** Sequences that are written at the same time, in one context, so that the library batches them. */
async function writersOf(lookup, count) {
  const key = `${lookup} ${count}`
  if (!writers.has(key)) {
    const contextSize = 1024
    const options = { contextSize, sequences: count, threads: Number(threads), batchSize: 512 }
    const context = await model.createContext(options)
    const writer = () => {
      const predictor =
        lookup > 0 ? new library.InputLookupTokenPredictor({ predictionLength: { max: lookup } }) : undefined
      return { predictor, sequence: context.getSequence(predictor && { tokenPredictor: predictor }) }
    }
    writers.set(key, Array.from({ length: count }, writer))
  }
  return writers.get(key)
}

async function write({ predictor, sequence }, most, ids) {
  await sequence.clearHistory()
  predictor?.updateInputTokens(ids)
  const written = []
  const start = performance.now()
  for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    written.push(token)
    if (model.isEogToken(token) || written.length >= most) break
  }
  return { ids: written, seconds: (performance.now() - start) / 1000 }
}

async function writeAll(most, lookup, prompts) {
  const chosen = await writersOf(lookup, prompts.length)
  return Promise.all(prompts.map((ids, i) => write(chosen[i], most, ids)))
}

async function answer(command, rest) {
  if (command === 'load') return load()
  if (command === 'ar') return decode()
  if (command === 'forward') return processed(Number(rest[0]))
  const prompts = rest[2].split(';').map((ids) => ids.split(',').map(Number))
  return writeAll(Number(rest[0]), Number(rest[1]), prompts)
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = line.trim().split(' ')
  say(await answer(command, rest))
}
process.exit(0)
