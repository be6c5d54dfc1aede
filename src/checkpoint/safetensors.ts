// The safetensors format, reading: a header of JSON, then raw little-endian tensors. Knows nothing about models.
import { basename, dirname, join } from 'node:path'
import { type DType, type TensorData, UserError } from '../types.ts'
import { isRecord, openFile, type RandomAccessFile, readJsonObject } from './file.ts'
import { decodeBFloat16, decodeFloat16 } from './float.ts'
import { checkJsonStructure } from './json.ts'
import type { TensorInfo } from './types.ts'

/** The limit of the reference implementation. */
export const MAX_HEADER_BYTES = 100_000_000

/** Bits per element of every type that the format defines. */
const DTYPE_BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
}

/** Tensors of one safetensors file or of all shards of an index. */
export interface SafetensorsFile {
  path: string
  /** The `__metadata__` of the header (of the first shard). */
  metadata: Readonly<Record<string, string>>
  tensors: ReadonlyMap<string, TensorInfo>
  /**
   * An F32, F16 or BF16 tensor as float32, row-major; by name, or as a description of a part of one. Throws UserError for
   * another type or an unknown name.
   */
  read(tensor: string | TensorInfo): Promise<Float32Array>
  /** A tensor in its stored type: F32, F16 (bits), I64, I32, I8, U8 or BOOL. Throws UserError for another type. */
  readRaw(tensor: string | TensorInfo): Promise<TensorData>
  close(): Promise<void>
}

const isIndex = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

interface Header {
  metadata: Record<string, string>
  tensors: Map<string, TensorInfo>
}

const parseMetadata = (path: string, value: unknown): Record<string, string> => {
  if (!isRecord(value)) throw new UserError(`${path}: __metadata__ is not an object`)
  for (const [key, entry] of Object.entries(value))
    if (typeof entry !== 'string') throw new UserError(`${path}: __metadata__.${key} is not a string`)
  return value as Record<string, string>
}

const parseTensor = (path: string, name: string, entry: unknown, dataStart: number, dataBytes: number): TensorInfo => {
  const fail = (problem: string): never => {
    throw new UserError(`${path}: tensor ${JSON.stringify(name)}: ${problem}`)
  }
  if (!isRecord(entry)) return fail('its header entry is not an object')
  const { dtype, shape, data_offsets: offsets } = entry
  const bits = typeof dtype === 'string' && Object.hasOwn(DTYPE_BITS, dtype) ? DTYPE_BITS[dtype] : undefined
  if (typeof dtype !== 'string' || bits === undefined) return fail(`unknown dtype ${JSON.stringify(dtype)}`)
  if (!Array.isArray(shape) || !shape.every(isIndex))
    return fail(`shape ${JSON.stringify(shape)} is not a list of sizes`)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isIndex))
    return fail(`data_offsets ${JSON.stringify(offsets)} are not two byte offsets`)
  const [begin, end] = offsets as [number, number]
  if (begin > end || end > dataBytes)
    return fail(`bytes ${begin} to ${end} are outside the ${dataBytes} bytes of data (is the file truncated?)`)
  const elements = (shape as number[]).reduce((product, size) => product * size, 1)
  const length = (elements * bits) / 8
  if (!Number.isSafeInteger(elements) || length !== end - begin)
    return fail(`shape [${shape.join(', ')}] of ${dtype} needs ${length} bytes, its data_offsets hold ${end - begin}`)
  return { name, dtype, shape: shape as number[], file: path, byteOffset: dataStart + begin, byteLength: length }
}

const readHeader = async (file: RandomAccessFile): Promise<Header> => {
  const { path, size } = file
  if (size < 8) throw new UserError(`${path}: not a safetensors file: ${size} bytes are too few for a header`)
  const prefix = new Uint8Array(8)
  await file.read(0, prefix)
  const length = new DataView(prefix.buffer).getBigUint64(0, true)
  if (length > BigInt(size - 8))
    throw new UserError(
      `${path}: not a safetensors file, or a truncated one: it announces a header of ${length} bytes and has ${size} in all`,
    )
  if (length > BigInt(MAX_HEADER_BYTES))
    throw new UserError(`${path}: a header of ${length} bytes is larger than the ${MAX_HEADER_BYTES} that are accepted`)
  const bytes = new Uint8Array(Number(length))
  await file.read(8, bytes)
  if (bytes[0] !== 0x7b) throw new UserError(`${path}: not a safetensors file: the header does not begin with {`)
  let value: unknown
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    // A tensor entry is an object with lists of numbers in it: three levels.
    checkJsonStructure(text, 3)
    value = JSON.parse(text)
  } catch (error) {
    throw new UserError(`${path}: the header is not valid: ${(error as Error).message}`)
  }
  if (!isRecord(value)) throw new UserError(`${path}: the header is not a JSON object`)

  const dataStart = 8 + bytes.length
  const dataBytes = size - dataStart
  const tensors = new Map<string, TensorInfo>()
  let metadata: Record<string, string> = {}
  for (const [name, entry] of Object.entries(value)) {
    if (name === '__metadata__') metadata = parseMetadata(path, entry)
    else tensors.set(name, parseTensor(path, name, entry, dataStart, dataBytes))
  }
  // The format wants the tensors to cover the data without holes and without overlap.
  let expected = dataStart
  for (const tensor of [...tensors.values()].sort(
    (a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength,
  )) {
    if (tensor.byteOffset !== expected)
      throw new UserError(
        `${path}: tensor ${JSON.stringify(tensor.name)} begins at byte ${tensor.byteOffset} of the file, ` +
          `${tensor.byteOffset < expected ? 'inside the tensor before it' : 'behind a hole'}; expected ${expected}`,
      )
    expected += tensor.byteLength
  }
  if (expected !== size)
    throw new UserError(`${path}: ${size - expected} bytes after the last tensor belong to no tensor`)
  return { metadata, tensors }
}

/** A new buffer of `bytes`. Throws UserError where one tensor is larger than the platform's largest array. */
const allocate = (info: TensorInfo, bytes: number): ArrayBuffer => {
  try {
    return new ArrayBuffer(bytes)
  } catch (error) {
    if (error instanceof RangeError)
      throw new UserError(`${info.file}: tensor ${info.name}: ${bytes} bytes do not fit into memory`)
    throw error
  }
}

/** Reads an F32, F16 or BF16 tensor as float32, in one allocation. */
const readFloat32 = async (file: RandomAccessFile, info: TensorInfo): Promise<Float32Array> => {
  if (info.dtype === 'F32') {
    const buffer = allocate(info, info.byteLength)
    await file.read(info.byteOffset, new Uint8Array(buffer))
    return new Float32Array(buffer)
  }
  if (info.dtype === 'F16' || info.dtype === 'BF16') {
    // The 16-bit values are read into the second half and widened in place: element i is read before anything at or
    // behind its place is overwritten.
    const buffer = allocate(info, 2 * info.byteLength)
    const half = new Uint16Array(buffer, info.byteLength)
    await file.read(info.byteOffset, new Uint8Array(buffer, info.byteLength))
    const output = new Float32Array(buffer)
    if (info.dtype === 'F16') decodeFloat16(half, output)
    else decodeBFloat16(half, output)
    return output
  }
  throw new UserError(
    `${info.file}: tensor ${info.name}: dtype ${info.dtype} cannot be read as weights; F32, F16 and BF16 can`,
  )
}

const rawTypes = {
  F32: ['float32', Float32Array],
  F16: ['float16', Uint16Array],
  I64: ['int64', BigInt64Array],
  I32: ['int32', Int32Array],
  I8: ['int8', Int8Array],
  U8: ['uint8', Uint8Array],
  BOOL: ['bool', Uint8Array],
} as const

const readStored = async (file: RandomAccessFile, info: TensorInfo): Promise<TensorData> => {
  if (!Object.hasOwn(rawTypes, info.dtype))
    throw new UserError(
      `${info.file}: tensor ${info.name}: dtype ${info.dtype} is not supported; ${Object.keys(rawTypes).join(', ')} are`,
    )
  const [dtype, View]: readonly [DType, new (buffer: ArrayBuffer) => TensorData['data']] =
    rawTypes[info.dtype as keyof typeof rawTypes]
  const buffer = allocate(info, info.byteLength)
  await file.read(info.byteOffset, new Uint8Array(buffer))
  return { dtype, shape: info.shape, data: new View(buffer) }
}

const closeAll = async (files: Iterable<RandomAccessFile>): Promise<void> => {
  await Promise.all([...files].map((file) => file.close()))
}

/** Opens the given safetensors files as one set of tensors. Throws UserError when a name occurs in two of them. */
const openShards = async (path: string, paths: readonly string[]): Promise<SafetensorsFile> => {
  const files = new Map<string, RandomAccessFile>()
  const tensors = new Map<string, TensorInfo>()
  let metadata: Record<string, string> | undefined
  try {
    for (const shard of paths) {
      const file = await openFile(shard)
      files.set(shard, file)
      const header = await readHeader(file)
      metadata ??= header.metadata
      for (const [name, info] of header.tensors) {
        const other = tensors.get(name)
        if (other !== undefined)
          throw new UserError(`${shard}: tensor ${JSON.stringify(name)} is also in ${basename(other.file)}`)
        tensors.set(name, info)
      }
    }
  } catch (error) {
    await closeAll(files.values())
    throw error
  }
  const lookup = (tensor: string | TensorInfo): [RandomAccessFile, TensorInfo] => {
    const info = typeof tensor === 'string' ? tensors.get(tensor) : tensor
    if (info === undefined) throw new UserError(`${path}: has no tensor ${JSON.stringify(tensor)}`)
    return [files.get(info.file)!, info]
  }
  return {
    path,
    metadata: metadata ?? {},
    tensors,
    read: async (tensor) => readFloat32(...lookup(tensor)),
    readRaw: async (tensor) => readStored(...lookup(tensor)),
    close: () => closeAll(files.values()),
  }
}

/** The shards that an index names, each once, as paths beside it. Only plain file names are followed. */
const readIndex = async (path: string): Promise<Map<string, string>> => {
  const { weight_map: map } = await readJsonObject(path)
  if (!isRecord(map)) throw new UserError(`${path}: has no weight_map object`)
  const places = new Map<string, string>()
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard))
      throw new UserError(
        `${path}: tensor ${JSON.stringify(name)}: ${JSON.stringify(shard)} is not the name of a shard`,
      )
    places.set(name, join(dirname(path), shard))
  }
  if (places.size === 0) throw new UserError(`${path}: weight_map is empty`)
  return places
}

/**
 * Opens a .safetensors file, or a `*.safetensors.index.json` with its shards beside it. Headers are read and checked,
 * weights are not. Throws UserError naming file and tensor when anything in the headers is inconsistent.
 */
export const openSafetensors = async (path: string): Promise<SafetensorsFile> => {
  if (!path.endsWith('.json')) return openShards(path, [path])
  const places = await readIndex(path)
  const file = await openShards(path, [...new Set(places.values())].sort())
  try {
    for (const [name, shard] of places) {
      const info = file.tensors.get(name)
      if (info?.file !== shard)
        throw new UserError(
          `${path}: tensor ${JSON.stringify(name)} is not in ${basename(shard)}, where the index puts it`,
        )
    }
    for (const info of file.tensors.values())
      if (!places.has(info.name))
        throw new UserError(`${info.file}: tensor ${JSON.stringify(info.name)} is missing in ${basename(path)}`)
  } catch (error) {
    await file.close()
    throw error
  }
  return file
}
