// bench decode: milliseconds per forward of a GGUF model in float32, by block size and by what is in the KV cache.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { openCheckpoint } from '../src/checkpoint/index.ts'
import { createForward } from '../src/decode/forward.ts'
import { createModel } from '../src/models/index.ts'
import { random } from '../src/random.ts'
import { createExecutor } from '../src/runtime/executor.ts'
import { type Parameter, UserError } from '../src/types.ts'
import { alternate, report } from './measure.ts'

const BLOCK_SIZES = [1, 8, 32]
const CACHE_LENGTHS = [0, 256, 1024]

export const usage = `usage: SMOLLM2_GGUF=FILE npm run bench -- decode [flags]

A denoising step: one block of ${BLOCK_SIZES.join(', ')} tokens against a cache of ${CACHE_LENGTHS.join(', ')} tokens, every position predicted.
SMOLLM2_GGUF names the model, such as SmolLM2-135M-Instruct.Q4_1.gguf; its weights are dequantised to float32.

  --rounds N      measured forwards of each case (default 20)
  --warmup N      forwards before them (default 3)
  --threads N     threads (default: the cores of the machine)
`

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      rounds: { type: 'string', default: '20' },
      warmup: { type: 'string', default: '3' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const file = process.env.SMOLLM2_GGUF
  if (!file) throw new UserError('bench decode: SMOLLM2_GGUF must name a GGUF file')
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
    const cache = await forward.createCache()
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
