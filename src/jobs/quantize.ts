// Makes a model small: its matrices in 4 or 8 bits, in a folder of its own. Composes reading, calibration, rounding and
// writing, one tensor in memory at a time.
import { isDeepStrictEqual } from 'node:util'
import { cardFiles } from '../account/card.ts'
import { derivedRecord } from '../account/record.ts'
import {
  type Checkpoint,
  claimOutput,
  openCheckpoint,
  pull,
  saveCheckpoint,
  type WritableTensor,
  type WritableTensors,
} from '../checkpoint/index.ts'
import { checkTensors } from '../checkpoint/load.ts'
import { quantizationConfig } from '../checkpoint/quantized.ts'
import { type BlockFormat, type QuantizedParameter, SettingError, UserError } from '../core/types.ts'
import { checkRows } from '../data/index.ts'
import { createModel } from '../models/index.ts'
import { inverseFactor, roundCompensated } from '../quant/gptq.ts'
import { blockLayout, dequantize, flipSigns, isMatrixToQuantize, quantizedNames, rowFormat } from '../quant/layout.ts'
import { roundToNearest } from '../quant/round.ts'
import { loadTokenizer } from '../tokenizer/index.ts'
import { type Calibration, calibrate } from './gptq-calibration.ts'

export type QuantizeEvent =
  | { type: 'phase'; message: string }
  /** A matrix is done, of `total`. `error` as in `QuantizeResult`; `share`: of the work, 0 to 1. */
  | { type: 'tensor'; name: string; done: number; total: number; error: number; share: number }

export interface QuantizeOptions {
  /** Model to quantise; see `load`. */
  model: string
  /** Folder to write. It must not exist, or be empty; never the model's own, nor in or around it. */
  out: string
  /** Whether a checkpoint in `out` may be replaced. Default false. */
  force?: boolean
  /** Default 4. */
  bits?: 4 | 8
  /** Values that share a scale: a power of two from 16, of which every row has a whole number. Default 32. */
  groupSize?: number
  /** One scale per group; otherwise it has a zero point too, a whole number. Default true, without offsets. */
  symmetric?: boolean
  /**
   * 8: products round their inputs to 8 bits too, each row with a scale of its own, and sum whole numbers; needs 8 bits, and
   * then a row of a matrix shares one scale. Fastest at many rows a forward. Default: as MatMulNBits does.
   */
  activations?: 8
  /** A float32 offset beside the scale of a group, in place of a zero point, as the minimum of ggml's Q4_1. Default false. */
  offsets?: boolean
  /** `rtn`: to the nearest value. `gptq`: so that products with inputs from the calibration text change least. Default rtn. */
  method?: 'rtn' | 'gptq'
  /** For gptq: text like that which the model will read and write; files, folders or globs. */
  calibration?: readonly string[]
  /** Most tokens of it. Default 16384. */
  calibrationTokens?: number
  /**
   * For gptq: the inputs of a layer are those that the layers before it give once they are quantised (in GPTQ's papers and
   * tools: sequential), which costs one more pass over the text. Default true.
   */
  sequential?: boolean
  /** How its rows are written. Default: the chat template where the tokenizer has one. */
  template?: 'none' | 'chat'
  threads?: number
  /** The command to record. Default `unmask quantize`. */
  command?: string
  signal?: AbortSignal
  /** Makes the model a path on this machine. Default `pull`. */
  fetch?: typeof pull
  onEvent?: (event: QuantizeEvent) => void
}

export interface QuantizeResult {
  out: string
  /** How many matrices were quantised. */
  tensors: number
  /** Bytes of the weights in the folder, and of the same weights in float32. */
  bytes: number
  floatBytes: number
  /**
   * What `error` is of: with gptq the outputs of each matrix W on the calibration text, |x W^T - x Wq^T| / |x W^T| over all
   * its inputs x (of the weights where the text gives it none, as experts and embeddings), else the weights, |W - Wq| / |W|.
   */
  measured: 'outputs' | 'weights'
  /** Root mean square of the relative changes of the matrices. */
  error: number
  /** The matrices that changed most, the worst first. */
  worst: { name: string; error: number }[]
}

/**
 * Quantises every matrix of a model, embedding and output head included, and writes the model to a folder that
 * `loadForInference` reads. Blocks of a GGUF file that have the format already are taken over. Throws UserError where the
 * model is quantised already, its rows are not whole groups, or `out` may not be written.
 */
export async function quantize(options: QuantizeOptions): Promise<QuantizeResult> {
  const { out, activations, bits = 4, groupSize = 32, offsets = false, symmetric = !offsets, method = 'rtn' } = options
  const { force, signal, onEvent = () => undefined } = options
  if (offsets && symmetric)
    throw new SettingError(['offsets', 'symmetric'], 'groups with offsets are not symmetric: choose one')
  const groups: BlockFormat = {
    bits,
    blockSize: groupSize,
    asymmetric: !symmetric && !offsets,
    ...(offsets ? { offsets } : {}),
  }
  if (activations) checkRowFormat(options)
  else checkFormat(groups)
  const formatOf = (shape: readonly number[]): BlockFormat => (activations ? rowFormat(shape) : groups)
  if ((method === 'gptq') !== (options.calibration !== undefined))
    throw new SettingError(['method', 'calibration'], 'gptq needs text, and no other method takes it')
  const { sequential = true } = options
  if (!sequential && method !== 'gptq')
    throw new SettingError('sequential', (nameOf) => `false is for ${nameOf('method')} gptq`)
  await claimOutput(out, { inputs: [options.model, ...(options.calibration ?? [])], force })
  if (options.calibration) await checkRows({ paths: options.calibration })
  const { path } = await (options.fetch ?? pull)(options.model, { signal })
  await claimOutput(out, { inputs: [path], force })
  const checkpoint = await openCheckpoint(path)
  let calibration: Calibration | undefined
  try {
    if (checkpoint.config.quantization_config)
      throw new UserError(`${options.model}: is quantised already; quantise the model that it was made from`)
    const model = createModel(checkpoint.config)
    checkTensors(checkpoint, model)
    const matrices = [...model.parameters].filter(([name, shape]) => isMatrixToQuantize(name, shape))
    for (const [name, [, width]] of matrices) {
      if (activations && width > MOST_SUMMED)
        throw new SettingError('activations', `rows of ${name} have ${width} values; whole numbers sum ${MOST_SUMMED}`)
      if (!activations && width % groupSize !== 0)
        throw new SettingError('groupSize', `rows of ${name} have ${width} values, not whole groups of ${groupSize}`)
    }

    const tokenizerFiles = await checkpoint.tokenizerFiles()
    if (options.calibration) {
      const tokenizer = loadTokenizer(tokenizerFiles)
      onEvent({ type: 'phase', message: 'running the model over the calibration text' })
      const { calibrationTokens: tokens = 16_384, template, threads } = options
      calibration = await calibrate({ model, tokenizer }, checkpoint.read, {
        paths: options.calibration,
        tokens,
        template,
        threads,
        signal,
      })
    }
    const errors: { name: string; error: number }[] = []
    // Rounding a matrix with its inputs in mind takes as long as a product with their sum.
    const work = ([name, [rows, width]]: (typeof matrices)[number]) =>
      rows * width * (calibration?.has(name) ? width : 1)
    const allWork = matrices.reduce((sum, matrix) => sum + work(matrix), 0)
    let doneWork = 0
    const round = async (name: string, shape: readonly number[], values: Float32Array) => {
      const format = formatOf(shape)
      if (isDeepStrictEqual(checkpoint.tensors.get(name)?.blocks, format)) return checkpoint.readQuantized(name)
      const gram = await calibration?.gram(name)
      return gram
        ? roundCompensated(shape, values, format, inverseFactor(gram, shape[1]))
        : roundToNearest(shape, values, format)
    }
    const make = async (name: string, shape: readonly number[]) => {
      signal?.throwIfAborted()
      const values = await readFinite(checkpoint, name)
      const parameter = await round(name, shape, values)
      const rounded = dequantize(parameter)
      const error = await relativeChange(values, rounded, (matrix) =>
        calibration?.has(name) ? calibration.outputSquares(name, matrix) : squares(matrix),
      )
      errors.push({ name, error })
      doneWork += work([name, shape])
      onEvent({ type: 'tensor', name, done: errors.length, total: matrices.length, error, share: doneWork / allWork })
      if (sequential) await calibration?.replace(name, rounded)
      return parameter
    }
    const parameters = writableTensors(model.parameters, {
      formatOf: (name, shape) => (isMatrixToQuantize(name, shape) ? formatOf(shape) : undefined),
      read: checkpoint.read,
      make,
    })
    const { generationConfig } = checkpoint
    const record = await derivedRecord({
      ...{ method: 'quantize', command: options.command ?? 'unmask quantize', signal },
      base: { name: options.model, path },
      settings: { method, ...formatOf([]), calibration: options.calibration },
    })
    await saveCheckpoint(out, {
      config: {
        ...model.config,
        quantization_config: quantizationConfig(method, formatOf([])),
      },
      parameters,
      tokenizerFiles,
      generationConfig,
      files: cardFiles(record, model),
    })
    const floatBytes = [...model.parameters.values()].reduce((sum, shape) => sum + 4 * elements(shape), 0)
    return {
      out,
      tensors: errors.length,
      bytes: storedBytes(parameters),
      floatBytes,
      measured: calibration ? 'outputs' : 'weights',
      error: Math.sqrt(errors.reduce((sum, { error }) => sum + error ** 2, 0) / errors.length),
      worst: errors.sort((a, b) => b.error - a.error).slice(0, 5),
    }
  } finally {
    await calibration?.dispose()
    await checkpoint.close()
  }
}

/** The tensors that store parameters as they are in the checkpoint: quantised where a folder has them so, else in float32. */
export function storedTensors(
  checkpoint: Checkpoint,
  parameters: ReadonlyMap<string, readonly number[]>,
): Map<string, WritableTensor> {
  return writableTensors(parameters, {
    // An adapter's base may be quantised; what it makes of that is not, as a whole.
    formatOf: (name) => (checkpoint.config.quantization_config ? checkpoint.tensors.get(name)?.blocks : undefined),
    read: checkpoint.read,
    make: checkpoint.readQuantized,
  })
}

function checkFormat({ bits, blockSize }: BlockFormat): void {
  if (bits !== 4 && bits !== 8) throw new SettingError('bits', `expected 4 or 8, not ${bits}`)
  if (!Number.isInteger(Math.log2(blockSize)) || blockSize < 16 || blockSize > 256)
    throw new SettingError('groupSize', `expected 16, 32, 64, 128 or 256, not ${blockSize}`)
}

/** Products of that many numbers of 8 bits fit into a sum of 32 bits. */
const MOST_SUMMED = 65_536

function checkRowFormat({ bits, groupSize, symmetric, offsets, method }: QuantizeOptions): void {
  if (bits !== 8) throw new SettingError(['activations', 'bits'], '8 bits of inputs need 8 bits of weights')
  if (groupSize !== undefined || symmetric === false || offsets)
    throw new SettingError(
      'activations',
      (nameOf) => `a row has one scale: leave out ${nameOf('groupSize')}, zero points and ${nameOf('offsets')}`,
    )
  if (method === 'gptq') throw new SettingError(['activations', 'method'], 'gptq rounds weights alone')
}

const elements = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1)

const squares = (values: Float32Array): number => values.reduce((sum, value) => sum + value ** 2, 0)

/** What rounding changed, relative, where `size` gives the square of the size of a matrix. */
async function relativeChange(
  values: Float32Array,
  rounded: Float32Array,
  size: (matrix: Float32Array) => number | Promise<number>,
): Promise<number> {
  const change = await size(values.map((value, i) => value - rounded[i]))
  return change === 0 ? 0 : Math.sqrt(change / (await size(values)))
}

async function readFinite(checkpoint: Checkpoint, name: string): Promise<Float32Array> {
  const values = await checkpoint.read(name)
  if (!values.every(Number.isFinite))
    throw new UserError(`${checkpoint.path}: tensor ${name} holds values that are not numbers`)
  return values
}

interface Source {
  /** In which format a parameter is written; undefined: float32. */
  formatOf(name: string, shape: readonly number[]): BlockFormat | undefined
  read(name: string): Promise<Float32Array>
  make(name: string, shape: readonly number[]): Promise<QuantizedParameter>
}

/** The module that a parameter belongs to: `model.layers.0.self_attn` of its projections. */
const moduleOf = (name: string): string => name.split('.').slice(0, -2).join('.')

/**
 * The tensors that store parameters, in the order in which they are written, each read once. Those of the quantised matrices
 * of a module lie together, part by part, so that several of them can be mapped as one (queries, keys and values).
 */
function writableTensors(
  parameters: ReadonlyMap<string, readonly number[]>,
  { formatOf, read, make }: Source,
): Map<string, WritableTensor> {
  const tensors = new Map<string, WritableTensor>()
  let group: { module: string; rest: [string, WritableTensor][] } | undefined
  const endGroup = () => {
    const order = ['scales', 'minima', 'zero_points']
    const part = (name: string) => order.indexOf(name.slice(name.lastIndexOf('.') + 1))
    for (const [name, tensor] of group?.rest.sort(([a], [b]) => part(a) - part(b)) ?? []) tensors.set(name, tensor)
    group = undefined
  }
  for (const [name, shape] of parameters) {
    const format = formatOf(name, shape)
    const module = moduleOf(name)
    if (!format || group?.module !== module) endGroup()
    if (!format) {
      tensors.set(name, { shape, read: () => read(name) })
      continue
    }
    group ??= { module, rest: [] }
    const layout = blockLayout(shape, format)
    const names = quantizedNames(name)
    // Made when its packed numbers are written, and let go part by part.
    const made: Partial<QuantizedParameter> = {}
    const readBytes = async () => {
      const { packed, ...others } = await make(name, shape)
      Object.assign(made, others)
      if (format.activations) flipSigns(packed)
      return packed
    }
    const take = async <Key extends 'scales' | 'offsets' | 'zeroPoints'>(key: Key) => {
      const values = made[key]
      delete made[key]
      return values as NonNullable<typeof values>
    }
    tensors.set(names.packed, { shape: layout.packed, dtype: layout.dtype, readBytes })
    group.rest.push([names.scales, { shape: layout.scales, read: () => take('scales') }])
    if (format.offsets) group.rest.push([names.offsets, { shape: layout.scales, read: () => take('offsets') }])
    if (format.asymmetric)
      group.rest.push([names.zeroPoints, { shape: layout.zeroPoints, readBytes: () => take('zeroPoints') }])
  }
  endGroup()
  return tensors
}

const storedBytes = (tensors: WritableTensors): number =>
  [...tensors.values()].reduce((sum, tensor) => sum + elements(tensor.shape) * ('readBytes' in tensor ? 1 : 4), 0)
