// bench decode: milliseconds per forward of a GGUF model in float32, by block size and by what is in the KV cache.
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { openCheckpoint } from '../src/checkpoint/index.ts'
import { random } from '../src/core/random.ts'
import { type Parameter, UserError } from '../src/core/types.ts'
import { createForward } from '../src/decode/forward.ts'
import { quantize } from '../src/jobs/quantize.ts'
import { createModel } from '../src/models/index.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { type Child, startChild } from './child.ts'
import { alternate, type Contestant, peakMemory, report } from './measure.ts'

const BLOCK_SIZES = [1, 8, 32]
const CACHE_LENGTHS = [0, 256, 1024]
/** Tokens of a block with --peer; 1 is a forward of autoregressive decoding. */
const PEER_BLOCKS = [1, 8, 16, 32]

export const usage = `usage: SMOLLM2_GGUF=FILE npm run bench -- decode [flags]

A denoising step: one block of ${BLOCK_SIZES.join(', ')} tokens against a cache of ${CACHE_LENGTHS.join(', ')} tokens, every position predicted.
SMOLLM2_GGUF names the model, such as SmolLM2-135M-Instruct.Q4_1.gguf; its weights are dequantised to float32.

With --peer it measures instead, beside node-llama-cpp on that file (Q4_1 takes 5 bits per weight), unmask on the file
quantised to 4 bits in groups of 32 (5 bits), and on the file's own blocks as they are: autoregressive decoding, and a
block of ${PEER_BLOCKS.join(', ')} tokens beside the peer's processing of that many prompt tokens; time to load; peak memory.
NODE_LLAMA_CPP=DIR names the folder in which node-llama-cpp is installed.

  --peer          compare with node-llama-cpp
  --bits N        bits of our weights with --peer, 4 or 8 (default 4)
  --activations 8 with --bits 8: activations in 8 bits, too
  --rounds N      measured forwards of each case (default 20)
  --warmup N      forwards before them (default 3)
  --threads N     threads (default: the cores of the machine)
`

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      peer: { type: 'boolean', default: false },
      bits: { type: 'string', default: '4' },
      activations: { type: 'string' },
      rounds: { type: 'string', default: '20' },
      warmup: { type: 'string', default: '3' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const file = process.env.SMOLLM2_GGUF
  if (!file) throw new UserError('bench decode: SMOLLM2_GGUF must name a GGUF file')
  if (values.peer) return comparePeer(resolve(file), values)
  const checkpoint = await openCheckpoint(file)
  const model = createModel(checkpoint.config)
  const weights = new Map<string, Parameter>()
  for (const [name, shape] of model.parameters) weights.set(name, { shape, data: await checkpoint.read(name) })
  await checkpoint.close()

  const executor = createExecutor({ threads: Number(values.threads) })
  const forward = await createForward(executor, model, weights, [])
  weights.clear()
  const draw = random(0)
  const tokens = (count: number) => Array.from({ length: count }, () => draw.integer(model.dimensions.vocabSize))
  const contestants: Record<string, () => Promise<number>> = {}
  for (const length of CACHE_LENGTHS) {
    const cache = forward.createCache()
    for (let start = 0; start < length; start += 256)
      await forward.run(cache, { ids: tokens(256), blockSize: 1, rows: [], store: 256 })
    for (const blockSize of BLOCK_SIZES) {
      const ids = tokens(blockSize)
      const rows = ids.map((_, i) => i)
      contestants[`block ${blockSize}, cache ${length}`] = async () => {
        const start = performance.now()
        await forward.run(cache, { ids, blockSize, rows, store: 0 })
        return performance.now() - start
      }
    }
  }
  const medians = await alternate(contestants, {
    rounds: Number(values.rounds),
    warmup: Number(values.warmup),
    rest: 0,
  })
  for (const [label, value] of Object.entries(medians))
    report({ bench: 'decode', case: label, value, unit: 'ms/forward' })
  await executor.dispose()
}

interface PeerFlags {
  bits: string
  activations?: string
  rounds: string
  warmup: string
  threads: string
}

/** Tokens that each run of autoregressive decoding makes. */
const AR_TOKENS = 64

async function comparePeer(file: string, { bits, activations, rounds, warmup, threads }: PeerFlags): Promise<void> {
  if (!process.env.NODE_LLAMA_CPP)
    throw new UserError('bench decode --peer: NODE_LLAMA_CPP must name the folder in which node-llama-cpp is installed')
  if (bits !== '4' && bits !== '8') throw new UserError(`--bits: expected 4 or 8, not ${bits}`)
  if (activations !== undefined && activations !== '8')
    throw new UserError(`--activations: expected 8, not ${activations}`)
  // What is measured is what `npm run build` makes.
  await promisify(execFile)('npm', ['run', 'build'])
  const folder = await mkdtemp(join(tmpdir(), 'unmask-bench-'))
  const children: Child[] = []
  try {
    const out = join(folder, 'model')
    await quantize({ model: file, out, bits: bits === '4' ? 4 : 8, ...(activations ? { activations: 8 } : {}) })
    const start = async (script: string, model: string) => {
      const path = fileURLToPath(new URL(script, import.meta.url))
      const child = await startChild(process.execPath, [path, model, threads, String(AR_TOKENS)])
      children.push(child)
      return child
    }
    const own = {
      [activations ? '8 bits, activations too' : `${bits} bits`]: await start('./peers/unmask.mjs', out),
      'as stored': await start('./peers/unmask.mjs', file),
    }
    const peer = await start('./peers/llamacpp.mjs', file)
    const compare = (label: string, unit: string, values: Readonly<Record<string, number>>) => {
      for (const kind of Object.keys(own))
        report({
          ...{ bench: 'decode', case: `${kind}, ${label}`, value: values[kind], unit },
          ...{ peer: peer.name, peerValue: values.peer },
        })
    }
    const each = async (measure: (child: Child) => Promise<number>) => {
      const values: Record<string, number> = {}
      for (const [name, child] of Object.entries({ ...own, peer })) values[name] = await measure(child)
      return values
    }
    const inTurn = (command: string, field: string) => {
      const runs = (child: Child) => async () => (await child.ask<Record<string, number>>(command))[field]
      const contestants = Object.entries({ ...own, peer }).map(([name, child]) => [name, runs(child)])
      return alternate(Object.fromEntries(contestants) as Record<string, Contestant>, {
        rounds: Number(rounds),
        warmup: Number(warmup),
      })
    }
    compare('load', 's', await each(async (child) => (await child.ask<{ seconds: number }>('load')).seconds))
    compare('AR', 'tokens/s', await inTurn('ar', 'speed'))
    for (const size of PEER_BLOCKS)
      compare(`block of ${size}`, 'ms/forward', await inTurn(`forward ${size}`, 'milliseconds'))
    compare('peak memory', 'MB', await each(async ({ pid }) => (peakMemory(pid) ?? Number.NaN) / 1e6))
  } finally {
    for (const child of children) await child.close()
    await rm(folder, { recursive: true })
  }
}
