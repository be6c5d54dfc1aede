// Quantised matrices in a safetensors checkpoint: which tensors make one up, and whether they fit together.
// Knows the names and shapes; how the numbers are packed is the quant layer's. Uses no Node API.
import {
  type BlockFormat,
  type FileRange,
  type MappedParameter,
  type ModelConfig,
  type QuantizedParameter,
  UserError,
} from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { blockLayout, flipSigns, quantizedNames, rowFormat } from '../quant/layout.ts'
import type { SafetensorsFile } from './safetensors.ts'
import type { TensorInfo } from './types.ts'

/**
 * `checkpoint_format` of the `quantization_config` in config.json, after the operator of ONNX Runtime that reads the matrices: of
 * groups, or of rows whose products round their inputs to 8 bits too.
 */
const CHECKPOINT_FORMATS = { groups: 'matmul_nbits', rows: 'qgemm' }

/** The `quantization_config` of config.json for matrices of a format; `row`: those of any width in rows. */
export const quantizationConfig = (
  method: string,
  { bits, blockSize, asymmetric, offsets, activations }: BlockFormat,
): Record<string, unknown> => ({
  quant_method: method,
  checkpoint_format: activations ? CHECKPOINT_FORMATS.rows : CHECKPOINT_FORMATS.groups,
  bits,
  // -1: the whole row, as GPTQ's tools say it.
  group_size: activations ? -1 : blockSize,
  sym: !asymmetric && !offsets,
  ...(offsets ? { offsets } : {}),
  activation_bits: activations,
})

/** The config of the same model with matrices that are not quantised. */
export function plainConfig({ quantization_config: _, ...config }: ModelConfig): ModelConfig {
  return config as ModelConfig
}

/** Size of the groups, or `rows`; undefined where the config says nothing of quantisation. */
function groupSize(
  file: Pick<SafetensorsFile, 'path'>,
  { quantization_config: settings }: ModelConfig,
): number | 'rows' | undefined {
  if (settings === undefined || settings === null) return undefined
  const fail = (problem: string): never => {
    throw new UserError(`${file.path}: quantization_config of config.json: ${problem}`)
  }
  if (!isRecord(settings)) return fail('is not an object')
  const { checkpoint_format: format, quant_method: method, group_size: size } = settings
  if (format === CHECKPOINT_FORMATS.rows) return 'rows'
  if (format !== CHECKPOINT_FORMATS.groups)
    return fail(
      `weights quantised by ${JSON.stringify(method ?? null)} in the format ${JSON.stringify(format ?? null)} are not read; ` +
        `take the model in float or as GGUF, and quantise it with unmask quantize`,
    )
  if (typeof size !== 'number' || size < 16 || size > 4096 || !Number.isInteger(Math.log2(size)))
    return fail(`group_size ${JSON.stringify(size ?? null)} is not a power of two from 16 to 4096`)
  return size
}

const floatTypes: readonly string[] = ['F32', 'F16', 'BF16']

/**
 * The tensors of a file with each quantised matrix as one entry: its shape [out, in], the bytes of all its parts, and
 * `blocks`. Throws UserError where parts are missing or do not fit together.
 */
export function quantizedTensors(
  file: Pick<SafetensorsFile, 'path' | 'tensors'>,
  config: ModelConfig,
): ReadonlyMap<string, TensorInfo> {
  const blockSize = groupSize(file, config)
  if (blockSize === undefined) return file.tensors
  if (blockSize === 'rows') return tensorsOfRows(file)
  const tensors = new Map(file.tensors)
  for (const info of file.tensors.values()) {
    const names = quantizedNames(info.name)
    const scales = file.tensors.get(names.scales)
    const { packed, ...parts } = names
    if (info.dtype !== 'U8' || !scales || Object.values(parts).includes(packed)) continue
    const zeroPoints = file.tensors.get(names.zeroPoints)
    const offsets = file.tensors.get(names.offsets)
    const fail = (problem: string): never => {
      throw new UserError(`${info.file}: tensor ${JSON.stringify(info.name)}: ${problem}`)
    }
    const [out, blocks, bytes] = info.shape
    const bits = (8 * bytes) / blockSize
    if (info.shape.length !== 3 || (bits !== 4 && bits !== 8))
      return fail(`[${info.shape.join(', ')}] is not [rows, blocks, bytes] of 4 or 8 bits in groups of ${blockSize}`)
    if (zeroPoints && offsets) return fail(`has both ${zeroPoints.name} and ${offsets.name}`)
    const format: BlockFormat = {
      bits,
      blockSize,
      asymmetric: zeroPoints !== undefined,
      ...(offsets && { offsets: true }),
    }
    const shape = [out, blocks * blockSize]
    const layout = blockLayout(shape, format)
    const check = (part: TensorInfo, expected: readonly number[], types: readonly string[]) => {
      if (part.shape.join() !== expected.join() || !types.includes(part.dtype))
        fail(
          `its ${part.name} is ${part.dtype} [${part.shape.join(', ')}], expected ${types.join(' or ')} [${expected.join(', ')}]`,
        )
    }
    check(scales, layout.scales, floatTypes)
    if (zeroPoints) check(zeroPoints, layout.zeroPoints, ['U8'])
    if (offsets) check(offsets, layout.scales, floatTypes)
    const third = zeroPoints ?? offsets
    const byteLength = info.byteLength + scales.byteLength + (third?.byteLength ?? 0)
    tensors.set(info.name, { ...info, dtype: `${bits}-bit`, shape, byteLength, blocks: format })
    for (const part of Object.values(parts)) tensors.delete(part)
  }
  return tensors
}

/** `quantizedTensors` of matrices in rows. */
function tensorsOfRows(file: Pick<SafetensorsFile, 'tensors'>): ReadonlyMap<string, TensorInfo> {
  const tensors = new Map(file.tensors)
  for (const info of file.tensors.values()) {
    const scales = file.tensors.get(quantizedNames(info.name).scales)
    if (info.dtype !== 'I8' || !scales) continue
    const { name, shape } = info
    if (shape.length !== 2 || scales.shape.join() !== String(shape[0]) || !floatTypes.includes(scales.dtype))
      throw new UserError(
        `${info.file}: tensor ${JSON.stringify(name)}: [${shape.join(', ')}] is not [rows, numbers], ` +
          `or its ${scales.name}, ${scales.dtype} [${scales.shape.join(', ')}], is not a float for each row`,
      )
    const byteLength = info.byteLength + scales.byteLength
    tensors.set(name, { ...info, dtype: '8-bit', byteLength, blocks: rowFormat(shape) })
    tensors.delete(scales.name)
  }
  return tensors
}

/** Reads a matrix that `quantizedTensors` described. */
export async function readQuantized(
  file: SafetensorsFile,
  tensors: ReadonlyMap<string, TensorInfo>,
  name: string,
): Promise<QuantizedParameter> {
  const info = tensors.get(name)
  if (!info?.blocks) throw new UserError(`${file.path}: has no quantised tensor ${JSON.stringify(name)}`)
  const names = quantizedNames(name)
  const bytes = async (part: string) => new Uint8Array((await file.readRaw(part)).data.buffer)
  const packed = await bytes(names.packed)
  if (info.blocks.activations) flipSigns(packed)
  return {
    shape: info.shape,
    format: info.blocks,
    packed,
    scales: await file.read(names.scales),
    zeroPoints: info.blocks.asymmetric ? await bytes(names.zeroPoints) : undefined,
    ...(info.blocks.offsets ? { offsets: await file.read(names.offsets) } : {}),
  }
}

/**
 * Where a tensor that `quantizedTensors` described lies, if it lies there as the executor needs it. `locate`: from a tensor's file
 * to the path that the executor is to read.
 */
export async function mapParameter(
  file: Pick<SafetensorsFile, 'tensors'>,
  tensors: ReadonlyMap<string, TensorInfo>,
  name: string,
  locate: (file: string) => string | Promise<string>,
): Promise<MappedParameter | undefined> {
  const info = tensors.get(name)
  if (!info) return undefined
  const range = async (part: string, dtype: string): Promise<FileRange | undefined> => {
    const stored = file.tensors.get(part)
    if (stored?.dtype !== dtype) return undefined
    return { path: await locate(stored.file), offset: stored.byteOffset, length: stored.byteLength }
  }
  const { shape, blocks: format } = info
  if (!format) {
    const data = await range(name, 'F32')
    return data && { shape, format, file: { data } }
  }
  const names = quantizedNames(name)
  const packed = await range(names.packed, format.activations ? 'I8' : 'U8')
  const scales = await range(names.scales, 'F32')
  const zeroPoints = format.asymmetric ? await range(names.zeroPoints, 'U8') : undefined
  const offsets = format.offsets ? await range(names.offsets, 'F32') : undefined
  // Offsets may be stored as 16-bit floats, which are not mapped; zero points were checked to be bytes.
  if (!packed || !scales || (format.offsets && !offsets)) return undefined
  return { shape, format, file: { packed, scales, zeroPoints, offsets } }
}
