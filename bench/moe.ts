// bench moe: a mixture of experts of LLaDA2.0-mini's shape with random weights in 4 bits: how long a forward takes and what
// it occupies, beside the time that reading the weights of the chosen experts would take at the memory's speed.
import { mkdir, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { openCheckpoint, saveCheckpoint, type WritableTensor } from '../src/checkpoint/index.ts'
import { quantizationConfig } from '../src/checkpoint/quantized.ts'
import { knownShapes } from '../src/cluster/shapes.ts'
import { random } from '../src/core/random.ts'
import { type BlockFormat, type InferenceParameter, type ModelConfig, UserError } from '../src/core/types.ts'
import { createForward } from '../src/decode/forward.ts'
import { createModel } from '../src/models/index.ts'
import { blockLayout, isMatrixToQuantize, quantizedNames } from '../src/quant/layout.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { median, peakMemory, report } from './measure.ts'

export const usage = `usage: npm run bench -- moe --dir DIR [flags]

Decodes with a model of LLaDA2.0-mini's shape (16.26 billion parameters, 10 GB on the disk in 4 bits) and random weights,
which is written to DIR where it is not there yet. Needs about 24 GB of memory; --layers makes it smaller.

  --layers N      layers, of LLaDA2.0-mini's 20
  --rows LIST     new positions per forward (default 1,8,32)
  --rounds N      measured forwards of each (default 5)
  --threads N     threads (default: the cores of the machine)
`

/** LLaDA2.0-mini, as its config.json says. */
const mini: ModelConfig = {
  ...knownShapes['llada2-mini'],
  mask_token_id: 156895,
  block_size: 32,
}

const FORMAT: BlockFormat = { bits: 4, blockSize: 32, asymmetric: false }

/** Symmetric 4-bit numbers are spread evenly from -8 to 7; with this scale the weights have a deviation of 0.02. */
const SCALE = 0.02 / Math.sqrt((16 ** 2 - 1) / 12)

const size = (shape: readonly number[]): number => shape.reduce((product, dim) => product * dim, 1)

/** Writes the model, one tensor in memory at a time. */
async function writeModel(folder: string, config: ModelConfig): Promise<void> {
  const model = createModel(config)
  const parameters = new Map<string, WritableTensor>()
  let stream = 0
  for (const [name, shape] of model.parameters) {
    const draw = random(0, stream++)
    if (isMatrixToQuantize(name, shape)) {
      const layout = blockLayout(shape, FORMAT)
      const names = quantizedNames(name)
      parameters.set(names.packed, {
        shape: layout.packed,
        readBytes: async () =>
          new Uint8Array(Uint32Array.from({ length: size(layout.packed) / 4 }, draw.uint32).buffer),
      })
      const scales = async () => new Float32Array(size(layout.scales)).fill(SCALE)
      parameters.set(names.scales, { shape: layout.scales, read: scales })
    } else {
      const read = async () => {
        const values = new Float32Array(size(shape))
        if (shape.length > 1) return draw.fillNormal(values).map((value) => 0.02 * value)
        return name.endsWith('bias') ? values : values.fill(1)
      }
      parameters.set(name, { shape, read })
    }
  }
  await saveCheckpoint(folder, {
    config: { ...config, quantization_config: quantizationConfig('rtn', FORMAT) },
    parameters,
    tokenizerFiles: {},
  })
}

/** Bytes a second that one pass over memory reads, with the threads of ONNX Runtime: of a long row of 8-bit numbers. */
function bandwidth(): number {
  const values = new Float64Array(2 ** 25).fill(1)
  const seconds: number[] = []
  for (let round = 0; round < 5; round++) {
    const start = performance.now()
    values.copyWithin(0, 2 ** 24)
    seconds.push((performance.now() - start) / 1000)
  }
  // Half of it is read, and as much written.
  return values.byteLength / median(seconds.slice(1))
}

/** Bytes of the weights that a forward of `rows` positions reads, if each chooses its experts by chance. */
function activeBytes(config: ModelConfig, parameters: ReadonlyMap<string, readonly number[]>, rows: number): number {
  const [experts, topK] = [Number(config.num_experts), Number(config.num_experts_per_tok)]
  const share = 1 - (1 - topK / experts) ** rows
  let bytes = 0
  for (const [name, shape] of parameters) {
    if (name.includes('embeddings')) continue
    const perValue = isMatrixToQuantize(name, shape) ? 0.5 + 4 / FORMAT.blockSize : 4
    bytes += size(shape) * perValue * (name.includes('.experts.') ? share : 1)
  }
  return bytes
}

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      dir: { type: 'string' },
      layers: { type: 'string', default: '20' },
      rows: { type: 'string', default: '1,8,32' },
      rounds: { type: 'string', default: '5' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  if (!values.dir) throw new UserError('bench moe: --dir must name a folder on a disk with room for the model')
  const config = { ...mini, num_hidden_layers: Number(values.layers) }
  const folder = join(values.dir, `llada2-mini-${values.layers}-layers`)
  const model = createModel(config)
  const total = [...model.parameters.values()].reduce((sum, shape) => sum + size(shape), 0)
  if (!(await stat(folder).catch(() => undefined))) {
    await mkdir(values.dir, { recursive: true })
    process.stderr.write(`writing ${folder}\n`)
    await writeModel(folder, config)
  }
  const line = (name: string, value: number, unit: string) => report({ bench: 'moe', case: name, value, unit })
  line('parameters', total, 'parameters')
  const speed = bandwidth()
  line('memory bandwidth', speed / 1e9, 'GB/s')
  const begin = performance.now()
  const checkpoint = await openCheckpoint(folder)
  const parameters = new Map<string, InferenceParameter>()
  for (const name of model.parameters.keys()) {
    const mapped = await checkpoint.map(name)
    if (!mapped) throw new UserError(`${folder}: was not written by this benchmark; remove it`)
    parameters.set(name, mapped)
  }
  await checkpoint.close()
  const executor = createExecutor({ threads: Number(values.threads) })
  const forward = await createForward(executor, model, parameters, [])
  line('load', (performance.now() - begin) / 1000, 's')
  const draw = random(1)
  const cache = forward.createCache()
  for (const rows of values.rows.split(',').map(Number)) {
    const ids = Array.from({ length: rows }, () => draw.integer(model.dimensions.vocabSize))
    const index = ids.map((_, i) => i)
    const milliseconds: number[] = []
    for (let round = 0; round <= Number(values.rounds); round++) {
      const start = performance.now()
      await forward.run(cache, { ids, blockSize: rows, rows: index, store: 0 })
      milliseconds.push(performance.now() - start)
    }
    const active = activeBytes(config, model.parameters, rows)
    report({
      bench: 'moe',
      case: `forward of ${rows}`,
      value: median(milliseconds.slice(1)),
      unit: 'ms',
      peer: `reading ${(active / 1e9).toFixed(2)} GB of active weights`,
      peerValue: (1000 * active) / speed,
    })
  }
  line('peak memory', (peakMemory(process.pid) ?? 0) / 1e9, 'GB')
  await executor.dispose()
}
