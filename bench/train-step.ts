// unmask's own contestant of `bench train`, in a process of its own: answers "step" with the seconds of one training
// step, "matmul" with the machine's float32 matmul speed and, when started with --profile, "profile" with where the
// time of the steps after the first few went.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { input } from '../src/graph/ops/input.ts'
import { matmul } from '../src/graph/ops/linear.ts'
import { createModel } from '../src/models/index.ts'
import { bdlm } from '../src/objectives/bdlm.ts'
import { objectiveAt } from '../src/objectives/index.ts'
import type { Executor } from '../src/runtime/executor.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { startTorch } from '../src/runtime/torch/process.ts'
import { createStepper, isMatrix } from '../src/train/stepper.ts'
import { createTorchStepper, torchTypes } from '../src/train/torch-stepper.ts'
import { serve } from './child.ts'
import { median } from './measure.ts'
import { profiled } from './profile.ts'
import { promptBatch, randomBatch, randomWeights, trainShapes } from './shapes.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string', default: '7m' },
    copies: { type: 'string', default: '1' },
    threads: { type: 'string', default: '2' },
    profile: { type: 'boolean', default: false },
    warmup: { type: 'string', default: '0' },
    // Rows of prompts and completions instead of text.
    prompts: { type: 'boolean', default: false },
    // Every position of every copy is computed, whether a loss depends on it or not.
    'whole-rows': { type: 'boolean', default: false },
    // PyTorch trains in this type, in place of ONNX Runtime.
    torch: { type: 'string' },
  },
})
const shape = trainShapes[flags.model]
const copies = Number(flags.copies)
const warmup = Number(flags.warmup)

/** 10^9 float32 operations a second of the best of a few products of the size that fills the caches well. */
async function matmulSpeed(executor: Executor): Promise<number> {
  const size = 1024
  const square = (name: string) => input(name, 'float32', [size, size])
  const outputs = { y: matmul(square('a'), square('b')) }
  const session = await executor.load({ name: 'matmul', outputs }, { optimize: false })
  for (const name of ['bench.a', 'bench.b', 'bench.y'])
    await executor.allocate(name, 'float32', new Float32Array(size * size).fill(0.5))
  const buffer = (name: string) => ({ resident: `bench.${name}`, shape: [size, size] })
  const seconds: number[] = []
  for (let i = 0; i < 12; i++) {
    const start = performance.now()
    await session.run({ a: buffer('a'), b: buffer('b') }, { y: buffer('y') })
    seconds.push((performance.now() - start) / 1000)
  }
  await session.release()
  for (const name of ['bench.a', 'bench.b', 'bench.y']) await executor.free(name)
  return (2 * size ** 3) / median(seconds.slice(2)) / 1e9
}

const folder = flags.profile ? await mkdtemp(join(tmpdir(), 'unmask-bench-')) : undefined
try {
  const executor = createExecutor({ threads: Number(flags.threads) })
  const profiling = folder === undefined ? undefined : profiled(executor, folder)
  const model = createModel(shape.config)
  const weights = randomWeights(model.parameters)
  const adamw = {
    decays: (name: string) => isMatrix(model, name),
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0.01,
    maxGradNorm: 0,
  }
  const dtype = torchTypes.find((type) => type === flags.torch)
  const stepper = dtype
    ? await createTorchStepper(await startTorch(), model, weights, { ...adamw, dtype, threads: executor.threads })
    : await createStepper(profiling?.executor ?? executor, model, weights, adamw)
  const { blockSize } = shape
  const settings = {
    maskTokenId: model.dimensions.vocabSize - 1,
    weighting: 'elbo',
    noise: { copies, perBlock: false },
    finalBlockSize: blockSize,
    blockSize,
    hiddenSize: model.dimensions.hiddenSize,
    embeddingNoise: 0,
  } as const
  const batch = flags.prompts ? promptBatch(shape) : randomBatch(shape)
  const objective = flags['whole-rows'] ? bdlm : objectiveAt('diffusion', settings, shape.length)
  const taken: number[] = []
  await serve(dtype ? `unmask, PyTorch ${dtype}` : 'unmask', async (command) => {
    if (command === 'matmul') return { gflops: await matmulSpeed(executor) }
    if (command === 'profile' && profiling) {
      const counted = taken.slice(warmup)
      const seconds = counted.reduce((a, b) => a + b, 0)
      return profiling.finish({ steps: counted.length, seconds, skipped: warmup })
    }
    if (command !== 'step') throw new Error(`unknown command ${JSON.stringify(command)}`)
    const start = performance.now()
    await stepper.update([objective.prepare(batch, { seed: 0, step: taken.length, row: 0 }, settings)], 1e-4)
    const seconds = (performance.now() - start) / 1000
    taken.push(seconds)
    return { seconds }
  })
  if (dtype) await stepper.dispose()
  await executor.dispose()
} finally {
  if (folder !== undefined) await rm(folder, { recursive: true })
}
