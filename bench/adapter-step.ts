// A contestant of `bench adapter`, in a process of its own: answers "step" with the seconds of one optimiser step.
import { parseArgs } from 'node:util'
import { loadForInference, loadForTraining } from '../src/checkpoint/load.ts'
import { random } from '../src/core/random.ts'
import type { Batch } from '../src/data/types.ts'
import { defaultTargetModules, initialLora, initialMagnitudes, loraShapes } from '../src/models/lora.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { createTrainer } from '../src/train/trainer.ts'
import { serve } from './child.ts'
import { randomBatch } from './shapes.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string', default: '' },
    // all, lora or dora.
    method: { type: 'string', default: 'all' },
    rank: { type: 'string', default: '16' },
    rows: { type: 'string', default: '1' },
    length: { type: 'string', default: '512' },
    accumulation: { type: 'string', default: '8' },
    threads: { type: 'string', default: '2' },
  },
})
const [rank, rows, length] = [flags.rank, flags.rows, flags.length].map(Number) as [number, number, number]
const blockSize = 32

const { model, parameters } = await (flags.method === 'all' ? loadForTraining : loadForInference)(flags.model)

/** New low-rank weights of the model. */
async function lowRank() {
  const options = { rank, targetModules: defaultTargetModules(model), dora: flags.method === 'dora' }
  const shapes = loraShapes(model, { ...options, maskEmbedding: false })
  const lengths = await initialMagnitudes(shapes, parameters)
  return { parameters: new Map([...initialLora(shapes, undefined, 0), ...lengths]), scale: 2 }
}

const executor = createExecutor({ threads: Number(flags.threads) })
const trainer = await createTrainer(executor, model, parameters, {
  objective: 'diffusion',
  maskTokenId: model.dimensions.vocabSize - 1,
  finalBlockSize: blockSize,
  weighting: 'elbo',
  noise: {},
  seed: 0,
  ...{ beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
  lora: flags.method === 'all' ? undefined : await lowRank(),
})
const shape = { config: model.config, rows, length, blockSize }
const batches = Array.from({ length: Number(flags.accumulation) }, (_, i): Batch => {
  const batch = randomBatch(shape)
  const draw = random(3, i)
  return { ...batch, ids: batch.ids.map(() => draw.integer(model.dimensions.vocabSize - 1)) }
})
let step = 0
await serve(`unmask, ${flags.method}`, async (command) => {
  if (command !== 'step') throw new Error(`unknown command ${JSON.stringify(command)}`)
  const start = performance.now()
  await trainer.step({ step: step++, batches, blockSize, learningRate: 1e-4, embeddingNoise: 0 })
  return { seconds: (performance.now() - start) / 1000 }
})
await executor.dispose()
