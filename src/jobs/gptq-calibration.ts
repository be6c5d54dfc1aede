// What the matrices of a model are multiplied with: runs the model over text, layer by layer, and sums x x^T of the inputs x
// of each matrix, inside the graph. Composes data, the objectives of training and the executor.

import { SettingError, type TensorData } from '../core/types.ts'
import { validationBatches } from '../data/index.ts'
import type { Batch } from '../data/types.ts'
import { add, mul } from '../graph/ops/elementwise.ts'
import { type InputAttributes, input, inputOperation } from '../graph/ops/input.ts'
import { reshape } from '../graph/ops/layout.ts'
import { matmul } from '../graph/ops/linear.ts'
import { sum } from '../graph/ops/reduce.ts'
import { type Program, topologicalOrder } from '../graph/program.ts'
import { type Dim, product, staticSize } from '../graph/shape.ts'
import { substitute } from '../graph/substitute.ts'
import { lastDim, type Node, type Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/index.ts'
import { bdlm } from '../objectives/bdlm.ts'
import { objectiveAt, type Variant } from '../objectives/index.ts'
import { tiles } from '../objectives/tiles.ts'
import type { MicroBatch } from '../objectives/types.ts'
import type { Resident, Session } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import { layerOf as layerName, objectiveProgram } from '../train/graph.ts'
import { wholeFiles } from './evaluate.ts'

export interface CalibrationOptions {
  /** Text: files, folders or globs, used whole. */
  paths: readonly string[]
  /** Most tokens of it. */
  tokens: number
  template?: 'none' | 'chat'
  threads?: number
  signal?: AbortSignal
}

/** One call at a time. */
export interface Calibration {
  /** Whether the model multiplies by a matrix, and so has inputs for it. */
  has(name: string): boolean
  /**
   * The sum of x x^T, [in, in], over the inputs x of the matrix `name` [out, in]; undefined where the model does not
   * multiply by it. Inputs are those that the weights give as they are when a layer's first sum is asked for; names are best
   * asked for in the order of `Model.parameters`. Only text counts: neither padding nor positions without a prediction do.
   */
  gram(name: string): Promise<Float32Array | undefined>
  /** The sum of the squares of x W^T over the inputs x of the matrix `name`, for a matrix W of its shape. */
  outputSquares(name: string, matrix: Float32Array): Promise<number>
  /** Gives a weight other values: those after it see what it does now. */
  replace(name: string, values: Float32Array): Promise<void>
  dispose(): Promise<void>
}

/** What some matrices are multiplied with. */
interface Product {
  x: Tensor
  names: string[]
  /** Number of the layer; the number of layers for what follows them, the output head. */
  layer: number
}

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
  const batches = await prepareBatches(model, tokenizer, options)
  const { objective, rows, length } = batches[0]
  const { loss } = objectiveProgram(model, objective, { rows, length }, { gradients: false }).outputs
  const nodes = topologicalOrder([loss])
  const layerOf = layerNumbers(nodes)
  const products = productsOf(model, nodes, layerOf)
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

  const start: Entry = { layer: 0, given: new Map(), buffers: batches.map(() => ({})) }
  /** Where the run over the text stands. */
  let entry = start
  /** The place after it, where it is known already; not any more once a weight is replaced. */
  let ahead: Entry | undefined
  let sums: Record<string, Resident> = {}
  let summed: Product[] = []
  let squares: Session | undefined

  /** Computes `outputs` for every batch, from what entered the layer; `targets` says where they go. */
  async function run(
    outputs: Record<string, Tensor>,
    feeds: Record<string, Resident>,
    targets: (batch: number) => Record<string, Resident>,
  ): Promise<void> {
    const names = Object.keys(outputs)
    const tensors = substitute(Object.values(outputs), entry.given)
    const program = { name: 'calibration', outputs: Object.fromEntries(names.map((name, i) => [name, tensors[i]])) }
    const session = await executor.load(program, { optimize: false })
    for (const [i, batch] of batches.entries()) {
      signal?.throwIfAborted()
      // A part of the model does not use all of the weights and feeds, which are passed over.
      await session.run({ ...weights, ...batch.feeds, ...entry.buffers[i], ...feeds }, targets(i))
    }
    await session.release()
  }

  /** Room for what enters a layer, and the tensors that it is made of: outputs of a run from an earlier place. */
  async function place(layer: number): Promise<{ at: Entry; outputs: Record<string, Tensor> }> {
    const later = products.filter((product) => product.layer >= layer).map(({ x }) => x)
    const tensors = entering(later, layer, layerOf)
    const nameOf = (tensor: Tensor) => `entering ${layer}, ${tensors.indexOf(tensor)}`
    const buffers: Record<string, Resident>[] = []
    for (const [batch, { feeds }] of batches.entries()) {
      buffers.push({})
      for (const tensor of tensors) {
        const resident = `${nameOf(tensor)} of batch ${batch}`
        const shape = tensor.shape.map((size) => (typeof size === 'number' ? size : feeds.loss_index.shape[0]))
        await executor.allocate(resident, tensor.dtype, staticSize(shape))
        buffers[batch][nameOf(tensor)] = { resident, shape }
      }
    }
    const given = new Map(tensors.map((tensor) => [tensor, input(nameOf(tensor), tensor.dtype, tensor.shape)]))
    return { at: { layer, given, buffers }, outputs: Object.fromEntries(tensors.map((t) => [nameOf(t), t])) }
  }

  const free = ({ buffers }: Entry) =>
    executor.free(...buffers.flatMap((residents) => Object.values(residents).map(({ resident }) => resident)))

  /** Goes on to a layer, from the beginning where it lies behind. */
  async function enter(layer: number): Promise<void> {
    if (layer < entry.layer) await move(start)
    if (ahead && entry.layer < layer) await move(ahead)
    while (entry.layer < layer) {
      const { at, outputs } = await place(entry.layer + 1)
      await run(outputs, {}, (batch) => at.buffers[batch])
      await move(at)
    }
  }

  async function move(to: Entry): Promise<void> {
    if (ahead && ahead !== to) await free(ahead)
    ahead = undefined
    await free(entry)
    entry = to
  }

  /** Leaves the sums of these products, of one layer, as resident buffers, and what enters the next layer. */
  async function sumInputs(wanted: Product[]): Promise<void> {
    const { layer } = wanted[0]
    await enter(layer)
    await executor.free(...Object.values(sums).map(({ resident }) => resident))
    const counted = countedInputs()
    const outputs: Record<string, Tensor> = {}
    sums = {}
    for (const product of wanted) {
      const width = lastDim(product.x)
      const name = sumName(product)
      outputs[`next ${name}`] = add(input(name, 'float32', [width, width]), countedSquares(product.x, counted))
      await executor.allocate(name, 'float32', width * width)
      sums[name] = { resident: name, shape: [width, width] }
    }
    const next = products.some((product) => product.layer > layer) ? await place(layer + 1) : undefined
    const targets = Object.fromEntries(Object.entries(sums).map(([name, resident]) => [`next ${name}`, resident]))
    await run({ ...outputs, ...next?.outputs }, sums, (batch) => ({ ...targets, ...next?.at.buffers[batch] }))
    ahead = next?.at
    summed = wanted
  }

  const productOf = (name: string) => products.find(({ names }) => names.includes(name))

  /** The sum of inputs of a product, as a resident buffer. */
  async function sumOf(wanted: Product): Promise<Resident> {
    if (!summed.includes(wanted)) await sumInputs(products.filter(({ layer }) => layer === wanted.layer))
    return sums[sumName(wanted)]
  }

  return {
    has: (name) => productOf(name) !== undefined,
    async gram(name) {
      const wanted = productOf(name)
      return wanted && ((await executor.read((await sumOf(wanted)).resident)) as Float32Array)
    },
    async outputSquares(name, matrix) {
      const gram = await sumOf(productOf(name)!)
      const width = gram.shape[0]
      squares ??= await executor.load(outputSquaresProgram())
      const feeds = { gram, matrix: { dtype: 'float32' as const, shape: [matrix.length / width, width], data: matrix } }
      return Math.max(0, Number((await squares.run(feeds, { squares: null })).squares.data[0]))
    },
    async replace(name, values) {
      if (ahead) await free(ahead)
      ahead = undefined
      await executor.write(name, values)
    },
    dispose: () => executor.dispose(),
  }
}

interface Entry {
  layer: number
  /** What earlier layers computed, and the inputs that take its place. */
  given: ReadonlyMap<Tensor, Tensor>
  /** Values of those inputs, for each batch. */
  buffers: Record<string, Resident>[]
}

/** Runs over text, and which of their rows count: feeds that `countedSquares` reads. */
async function prepareBatches(
  model: Model,
  tokenizer: Tokenizer,
  { paths, tokens, template }: CalibrationOptions,
): Promise<MicroBatch<Variant>[]> {
  const { config, dimensions } = model
  const maskTokenId = typeof config.mask_token_id === 'number' ? config.mask_token_id : undefined
  const name = maskTokenId === undefined || config.causal_context === true ? 'ar' : 'diffusion'
  const blockSize = name === 'ar' ? 1 : typeof config.block_size === 'number' ? config.block_size : 32
  const text = wholeFiles(paths, { model, tokenizer }, { blockSize, seed: 0, template })
  const batches = await validationBatches(text, tokens)
  if (batches.length === 0) throw new SettingError('calibration', `there is no text in ${paths.join(', ')}`)
  const shift = config.same_token_labels === false
  const sizes = { blockSize, finalBlockSize: blockSize, hiddenSize: dimensions.hiddenSize }
  const settings = { ...sizes, maskTokenId, shift, noise: {}, weighting: 'elbo', embeddingNoise: 0 } as const
  return batches.map((batch, index) => {
    const at = { seed: 0, step: 0, row: index * batch.rows }
    const objective = objectiveAt(name, settings, batch.length)
    // Sums over every position, also of blocks that no loss depends on.
    const microBatch = (objective === tiles ? bdlm : objective).prepare(batch, at, settings)
    return { ...microBatch, feeds: { ...microBatch.feeds, ...countedRows(batch, microBatch) } }
  })
}

const flags = (values: boolean[]): TensorData => ({
  dtype: 'float32',
  shape: [values.length, 1],
  data: Float32Array.from(values, Number),
})

/** Which positions of the input hold text, and which of those that are predicted do and carry loss. */
function countedRows({ documents, padding }: Batch, { feeds }: MicroBatch<Variant>): Record<string, TensorData> {
  const isText = (position: number) => {
    const i = position % documents.length
    return documents[i] >= 0 && padding[i] === 0
  }
  const { input_ids, loss_index, loss_weights } = feeds as Record<string, TensorData>
  const at = Array.from(loss_index.data as BigInt64Array, Number)
  return {
    counted_positions: flags(Array.from({ length: input_ids.data.length }, (_, i) => isText(i))),
    counted_predictions: flags(at.map((position, i) => loss_weights.data[i] > 0 && isText(position))),
  }
}

/** x^T x over the rows of x [..., width] that count: [width, width]. */
function countedSquares(x: Tensor, counted: (rows: Dim) => Tensor): Tensor {
  const rows = product(x.shape.slice(0, -1))
  const flat = reshape(x, [rows, lastDim(x)])
  return matmul(flat, mul(flat, counted(rows)), { transposeA: true })
}

/** The inputs that say which rows count, of all positions or, after the last attention, of those that are predicted. */
function countedInputs(): (rows: Dim) => Tensor {
  const inputs = new Map<Dim, Tensor>()
  return (rows) => {
    const name = typeof rows === 'number' ? 'counted_positions' : 'counted_predictions'
    const known = inputs.get(rows) ?? input(name, 'float32', [rows, 1])
    inputs.set(rows, known)
    return known
  }
}

/** The sum of the squares of x W^T from `gram`, the sum of x x^T: tr(W gram W^T). */
function outputSquaresProgram(): Program {
  const matrix = input('matrix', 'float32', ['O', 'N'])
  const squares = sum(mul(matmul(matrix, input('gram', 'float32', ['N', 'N'])), matrix))
  return { name: 'output squares', outputs: { squares } }
}

/** The inputs of every matrix that the program multiplies by, in the order of the model's parameters. */
function productsOf(model: Model, nodes: readonly Node[], layerOf: (name: string) => number): Product[] {
  const inputs = new Map<string, Tensor>()
  for (const {
    inputs: [x, weight],
  } of nodes)
    if (weight?.node.operation === (inputOperation as unknown) && weight.shape.length === 2) {
      const { name } = weight.node.attributes as InputAttributes
      if (model.parameters.has(name)) inputs.set(name, x)
    }
  const products = new Map<Tensor, Product>()
  for (const name of model.parameters.keys()) {
    const x = inputs.get(name)
    if (!x) continue
    const known = products.get(x)
    if (known) known.names.push(name)
    // An embedding that is also the head is multiplied by at the end.
    else products.set(x, { x, names: [name], layer: layerOf(name) })
  }
  return [...products.values()]
}

const sumName = ({ names }: Product): string => `sum of inputs of ${names[0]}`

/** Numbers of the layers that nodes and parameters belong to, by their scope or name; the number of layers for all others. */
function layerNumbers(nodes: readonly Node[]): (name: string) => number {
  const names = new Set(nodes.flatMap(({ scope }) => layerName(scope) ?? []))
  const numbers = new Map([...names].map((name, i) => [name, i]))
  return (name) => numbers.get(layerName(name) ?? '') ?? numbers.size
}

/** What enters a layer: the tensors that earlier layers compute and the nodes before `outputs` use from it on. */
function entering(outputs: readonly Tensor[], layer: number, layerOf: (name: string) => number): Tensor[] {
  const isEarlier = (tensor: Tensor) => layerOf(tensor.node.scope) < layer
  const later = topologicalOrder(outputs).filter(({ scope }) => layerOf(scope) >= layer)
  return [...new Set(later.flatMap(({ inputs }) => inputs.filter(isEarlier)))]
}
