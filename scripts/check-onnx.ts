// UNMASK_PYTHON=FILE npx tsx scripts/check-onnx.ts [FOLDER]: are the programs that unmask runs valid ONNX, also outside unmask?
// Trains and decodes a little with the model in FOLDER (the golden model by default), writes every program that was
// loaded for it with the values it read and gave, and has Python check and run them: onnx and onnxruntime are needed.
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openCheckpoint } from '../src/checkpoint/index.ts'
import { random } from '../src/core/random.ts'
import type { Parameter, TensorData } from '../src/core/types.ts'
import type { Batch } from '../src/data/types.ts'
import { createForward } from '../src/decode/forward.ts'
import { createModel } from '../src/models/index.ts'
import type { Executor, Session, Source, Weight } from '../src/runtime/executor.ts'
import { createExecutor, lower } from '../src/runtime/onnxruntime/executor.ts'
import { createTrainer, type TrainerOptions } from '../src/train/trainer.ts'

interface Value {
  dtype: string
  shape: readonly number[]
  file: string
}
interface Recorded {
  name: string
  file: string
  inputs: Record<string, Value>
  outputs: Record<string, Value>
}

/** An executor that writes each session's program, and the inputs and outputs of its first run, into `folder`. */
function recording(executor: Executor, folder: string) {
  const programs: Recorded[] = []
  let files = 0
  const keep = ({ dtype, shape, data }: TensorData): Value => {
    const file = join(folder, `${files++}.bin`)
    writeFileSync(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    return { dtype, shape: [...shape], file }
  }
  const value = async (source: Source): Promise<TensorData> => {
    if ('data' in source) return source
    const size = source.shape.reduce((a, b) => a * b, 1)
    const data = await executor.read(source.resident, source.offset ?? 0, size)
    return { dtype: 'float32', shape: source.shape, data }
  }
  const recorded: Executor = {
    ...executor,
    async load(traced, options = {}): Promise<Session> {
      const own = join(folder, `program${programs.length}`)
      mkdirSync(own)
      const file = join(own, 'model.onnx')
      const { model, loaded } = lower(traced, options)
      writeFileSync(file, model)
      const program: Recorded = { name: traced.name, file, inputs: {}, outputs: {} }
      programs.push(program)
      const taken: Weight[] = []
      for await (const weight of options.constants?.values(loaded) ?? []) {
        const { dtype, data, uses } = weight
        for (const { name, shape } of uses) program.inputs[name] = keep({ dtype, shape, data })
        taken.push(weight)
      }
      const constants = options.constants && { ...options.constants, values: () => taken }
      const session = await executor.load(traced, { ...options, constants })
      let first = true
      let bound: Parameters<Session['bind']> = [{}, {}]
      return {
        ...session,
        bind(...parts) {
          bound = parts
          return session.bind(...parts)
        },
        async run(feeds, fetches, runOptions) {
          const wanted = first
          first = false
          if (wanted)
            for (const [name, source] of Object.entries({ ...bound[0], ...feeds }))
              program.inputs[name] = keep(await value(source))
          const outputs = await session.run(feeds, fetches, runOptions)
          if (wanted)
            for (const [name, target] of Object.entries({ ...bound[1], ...fetches }))
              program.outputs[name] = keep(target ? await value(target) : outputs[name])
          return outputs
        },
      }
    },
  }
  return { executor: recorded, programs }
}

function packedBatch(vocabulary: number): Batch {
  const [rows, length, document] = [2, 32, 16]
  const draw = random(1)
  const each = (f: (i: number) => number) => Int32Array.from({ length: rows * length }, (_, i) => f(i))
  return {
    rows,
    length,
    ids: each(() => draw.integer(vocabulary - 1)),
    documents: each((i) => Math.floor((i % length) / document)),
    positions: each((i) => i % document),
    maskable: new Uint8Array(rows * length).fill(1),
    padding: new Uint8Array(rows * length),
    documentIds: [],
    tokens: rows * length,
    bytes: rows * length,
  }
}

/** One step or forward of everything that unmask compiles for a model. */
async function exercise(executor: Executor, folder: string): Promise<void> {
  const checkpoint = await openCheckpoint(folder)
  const model = createModel(checkpoint.config)
  const weights = new Map<string, Parameter>()
  for (const [name, shape] of model.parameters) weights.set(name, { shape, data: await checkpoint.read(name) })
  await checkpoint.close()

  const { vocabSize } = model.dimensions
  const batch = packedBatch(vocabSize)
  const options: TrainerOptions = {
    objective: 'diffusion',
    maskTokenId: vocabSize - 1,
    weighting: 'elbo',
    noise: { copies: 2, complementary: true },
    finalBlockSize: 8,
    seed: 0,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0.1,
    maxGradNorm: 1,
  }
  for (const objective of ['diffusion', 'ar'] as const) {
    const trainer = await createTrainer(executor, model, weights, { ...options, objective })
    const step = { batches: [batch, batch], learningRate: 1e-3, embeddingNoise: 0.1 }
    const blockSizes = objective === 'ar' ? [1] : [1, 8, 16, batch.length]
    for (const [i, blockSize] of blockSizes.entries()) await trainer.step({ ...step, step: i, blockSize })
    await trainer.evaluate([batch], { blockSize: objective === 'ar' ? 'ar' : 8, seed: 1 })
    await trainer.dispose()
  }
  const forward = await createForward(executor, model, weights, [vocabSize - 1])
  const cache = await forward.createCache()
  await forward.run(cache, { ids: [1, 2, 3, 4, 5], blockSize: 4, rows: [3, 4], store: 4, logits: true })
  await forward.dispose()
}

const python = process.env.UNMASK_PYTHON
const [model = fileURLToPath(new URL('../test/golden/llama-tied', import.meta.url))] = process.argv.slice(2)
if (!python) {
  process.stderr.write(
    'usage: UNMASK_PYTHON=FILE npx tsx scripts/check-onnx.ts [FOLDER]   (a Python with onnx, onnxruntime)\n',
  )
  process.exit(2)
}
const folder = await mkdtemp(join(tmpdir(), 'unmask-onnx-'))
try {
  const executor = createExecutor()
  const { executor: recorded, programs } = recording(executor, folder)
  await exercise(recorded, model)
  await executor.dispose()
  const manifest = join(folder, 'programs.json')
  writeFileSync(manifest, JSON.stringify(programs))
  const script = fileURLToPath(new URL('./check_onnx.py', import.meta.url))
  const { status, error } = spawnSync(python, [script, manifest], { stdio: 'inherit' })
  if (error) throw error
  process.exitCode = status ?? 1
} finally {
  await rm(folder, { recursive: true })
}
