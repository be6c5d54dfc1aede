// Reading safetensors files and shards. Knows nothing about models.
import { basename, dirname, join } from 'node:path'
import { type TensorData, UserError } from '../core/types.ts'
import { decodeBFloat16, decodeFloat16 } from '../formats/float.ts'
import { isRecord } from '../formats/json.ts'
import { type Header, headerLength, heldType, PREFIX_BYTES, parseHeader } from '../formats/safetensors.ts'
import { exists, openFile, type RandomAccessFile, readModelJson } from './file.ts'
import type { TensorInfo } from './types.ts'

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

const readHeader = async (file: RandomAccessFile): Promise<Header> => {
  const { path, size } = file
  const prefix = new Uint8Array(PREFIX_BYTES)
  if (size >= PREFIX_BYTES) await file.read(0, prefix)
  const bytes = new Uint8Array(headerLength(path, prefix, size))
  await file.read(PREFIX_BYTES, bytes)
  return parseHeader(path, bytes, size)
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

const readStored = async (file: RandomAccessFile, info: TensorInfo): Promise<TensorData> => {
  const [dtype, View] = heldType(info)
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

/** Files of one model. */
const MAX_SHARDS = 4096

/** The shards that an index names, each once, as paths beside it. Only plain file names are followed. */
const readIndex = async (path: string): Promise<Map<string, string>> => {
  const { weight_map: map } = await readModelJson(path)
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
  const shards = new Set(places.values()).size
  if (shards > MAX_SHARDS) throw new UserError(`${path}: names ${shards} shards; at most ${MAX_SHARDS} are accepted`)
  return places
}

/**
 * Opens .safetensors files as one set of tensors, or a `*.safetensors.index.json` with its shards beside it; shards may hold
 * tensors that the index does not name. Headers are read and checked, weights are not. Throws UserError naming file and
 * tensor when anything in the headers is inconsistent.
 */
export const openSafetensors = async (path: string, ...others: string[]): Promise<SafetensorsFile> => {
  if (!path.endsWith('.json')) return openShards(path, [path, ...others])
  const places = await readIndex(path)
  const shards = [...new Set(places.values())].sort()
  const missing: string[] = []
  for (const shard of shards) if (!(await exists(shard))) missing.push(basename(shard))
  if (missing.length > 0)
    throw new UserError(
      `${path}: ${missing.length} of ${shards.length} shards are missing: ${missing.slice(0, 5).join(', ')}; fetch the model again`,
    )
  const file = await openShards(path, shards)
  try {
    for (const [name, shard] of places) {
      const info = file.tensors.get(name)
      if (info?.file !== shard)
        throw new UserError(
          `${path}: tensor ${JSON.stringify(name)} is not in ${basename(shard)}, where the index puts it`,
        )
    }
  } catch (error) {
    await file.close()
    throw error
  }
  return file
}
