// What the matrices of a model are multiplied with: runs the float32 model over text and sums x x^T of the inputs x of each
// matrix, inside the graph. Composes data, the objectives of training and the executor.
import { validationBatches } from './data/index.ts'
import { wholeFiles } from './evaluate.ts'
import { add } from './graph/ops/elementwise.ts'
import { type InputAttributes, input, inputOperation } from './graph/ops/input.ts'
import { reshape } from './graph/ops/layout.ts'
import { matmul } from './graph/ops/linear.ts'
import { exportOnnx, topologicalOrder } from './graph/program.ts'
import { product } from './graph/shape.ts'
import { lastDim, type Tensor } from './graph/tensor.ts'
import type { Model } from './models/index.ts'
import type { Executor, Resident } from './runtime/executor.ts'
import { createExecutor } from './runtime/onnxruntime/executor.ts'
import type { Tokenizer } from './tokenizer/types.ts'
import { objectiveProgram } from './train/graph.ts'
import { arMicroBatch, diffusionMicroBatch } from './train/micro-batch.ts'
import type { MicroBatch } from './train/stepper.ts'
import { UserError } from './types.ts'

export interface CalibrationOptions {
  /** Text: files, folders or globs, used whole. */
  paths: readonly string[]
  /** Most tokens of it. */
  tokens: number
  template?: 'none' | 'chat'
  threads?: number
  signal?: AbortSignal
}

export interface Calibration {
  /**
   * The sum of x x^T, [in, in], over the inputs x of the matrix `name` [out, in]; undefined where the model did not
   * multiply by it. Fast where names are asked for in the order of `Model.parameters`.
   */
  gram(name: string): Promise<Float32Array | undefined>
  dispose(): Promise<void>
}

/** What some matrices are multiplied with. */
interface Products {
  x: Tensor
  names: string[]
}

/** Bytes of sums that are held at a time: the model runs over the text once for every part of its matrices. */
const PART_BYTES = 2 ** 29

/**
 * Prepares to run a model over text as it is used: a causal model causally, a diffusion model with masked blocks of its
 * block size. `read` gives the weights, each once; they move to the executor.
 */
export async function calibrate(
  { model, tokenizer }: { model: Model; tokenizer: Tokenizer },
  read: (name: string) => Promise<Float32Array>,
  options: CalibrationOptions,
): Promise<Calibration> {
  const { signal } = options
  const microBatches = await prepareBatches(model, tokenizer, options)
  const parts = partsOf(productsOf(model, microBatches[0]))
  const executor = createExecutor({ threads: options.threads })
  const weights: Record<string, Resident> = {}
  try {
    for (const [name, shape] of model.parameters) {
      signal?.throwIfAborted()
      await executor.allocate(name, 'float32', await read(name))
      weights[name] = { resident: name, shape }
    }
  } catch (error) {
    await executor.dispose()
    throw error
  }
  let current: Products[] = []
  return {
    async gram(name) {
      const has = ({ names }: Products) => names.includes(name)
      if (!current.some(has)) {
        const part = parts.find((products) => products.some(has))
        if (!part) return undefined
        for (const products of current) await executor.free(sumName(products))
        current = part
        await sumInputs(executor, part, { weights, microBatches, signal })
      }
      return (await executor.read(sumName(current.find(has)!))) as Float32Array
    },
    dispose: () => executor.dispose(),
  }
}

async function prepareBatches(
  model: Model,
  tokenizer: Tokenizer,
  { paths, tokens, template }: CalibrationOptions,
): Promise<MicroBatch[]> {
  const { config, dimensions } = model
  const maskTokenId = typeof config.mask_token_id === 'number' ? config.mask_token_id : undefined
  const blockSize = maskTokenId === undefined ? 1 : typeof config.block_size === 'number' ? config.block_size : 32
  const text = wholeFiles(paths, { model, tokenizer }, { blockSize, seed: 0, template })
  const batches = await validationBatches(text, tokens)
  if (batches.length === 0) throw new UserError(`--calibration: there is no text in ${paths.join(', ')}`)
  if (maskTokenId === undefined) return batches.map((batch) => arMicroBatch(batch).microBatch)
  const shift = config.same_token_labels === false
  const denoising = { maskTokenId, shift, finalBlockSize: blockSize, hiddenSize: dimensions.hiddenSize }
  const noise = { blockSize, seed: 0, step: 0, noise: { copies: 1 }, weighting: 'elbo', embeddingNoise: 0 } as const
  return batches.map(
    (batch, index) => diffusionMicroBatch(batch, { ...noise, microBatch: index }, denoising).microBatch,
  )
}

/** The inputs of every matrix that the program multiplies by, in the order of the model's parameters. */
function productsOf(model: Model, { objective, rows, length }: MicroBatch): Products[] {
  const { loss } = objectiveProgram(
    model,
    objective,
    { rows, length },
    { gradients: false, embeddingNoise: false },
  ).outputs
  const inputs = new Map<string, Tensor>()
  for (const {
    inputs: [x, weight],
  } of topologicalOrder([loss]))
    if (weight?.node.operation === (inputOperation as unknown) && weight.shape.length === 2) {
      const { name } = weight.node.attributes as InputAttributes
      if (model.parameters.has(name)) inputs.set(name, x)
    }
  const products = new Map<Tensor, Products>()
  for (const name of model.parameters.keys()) {
    const x = inputs.get(name)
    if (!x) continue
    const known = products.get(x)
    if (known) known.names.push(name)
    else products.set(x, { x, names: [name] })
  }
  return [...products.values()]
}

const sumName = ({ names }: Products): string => `sum of inputs of ${names[0]}`
const sumBytes = ({ x }: Products): number => 4 * lastDim(x) ** 2

function partsOf(all: readonly Products[]): Products[][] {
  const parts: Products[][] = []
  let bytes = Number.POSITIVE_INFINITY
  for (const products of all) {
    bytes += sumBytes(products)
    if (bytes > PART_BYTES) {
      parts.push([])
      bytes = sumBytes(products)
    }
    parts.at(-1)!.push(products)
  }
  return parts
}

/** Runs the part of the model that gives these inputs, and leaves their sums as resident buffers. */
async function sumInputs(
  executor: Executor,
  part: readonly Products[],
  run: { weights: Record<string, Resident>; microBatches: readonly MicroBatch[]; signal: AbortSignal | undefined },
): Promise<void> {
  const outputs: Record<string, Tensor> = {}
  const sums: Record<string, Resident> = {}
  for (const products of part) {
    const { x } = products
    const width = lastDim(x)
    const name = sumName(products)
    const flat = reshape(x, [product(x.shape.slice(0, -1)), width])
    outputs[`next ${name}`] = add(input(name, 'float32', [width, width]), matmul(flat, flat, { transposeA: true }))
    await executor.allocate(name, 'float32', width * width)
    sums[name] = { resident: name, shape: [width, width] }
  }
  const { model, inputs } = exportOnnx({ name: 'calibration', outputs })
  const session = await executor.load(model, { optimize: false })
  const targets = Object.fromEntries(Object.entries(sums).map(([name, sum]) => [`next ${name}`, sum]))
  for (const { feeds } of run.microBatches) {
    run.signal?.throwIfAborted()
    const all = { ...run.weights, ...feeds, ...sums }
    // A part of the model does not use all of the weights and feeds.
    await session.run(Object.fromEntries(inputs.map(({ name }) => [name, all[name]])), targets)
  }
  await session.release()
}
