// Writing safetensors: one file or Hugging Face shards with their index, one tensor in memory at a time.
import { join } from 'node:path'
import { type Parameter, UserError } from '../core/types.ts'
import { encodeBFloat16, encodeFloat16 } from '../formats/float.ts'
import { encodeHeader } from '../formats/safetensors.ts'
import { type ByteSink, writeAtomically, writeTextAtomically } from './file.ts'

export type StoredDType = 'F32' | 'F16' | 'BF16'

/** A parameter whose values are fetched when its turn to be written comes, for models that are not all in memory. */
export interface DeferredParameter {
  shape: readonly number[]
  read(): Promise<Float32Array>
}

/** The same for whole numbers, which are stored as they are whatever the type of the other tensors. */
export interface DeferredBytes {
  shape: readonly number[]
  /** Default `uint8`. */
  dtype?: 'uint8' | 'int8'
  readBytes(): Promise<Uint8Array | Int8Array>
}

export type WritableTensor = Parameter | DeferredParameter | DeferredBytes

export type WritableTensors = ReadonlyMap<string, WritableTensor>

export interface WriteOptions {
  /** Type of the tensors of numbers, of all or by name; float32 is rounded to nearest, ties to even. Default F32. */
  dtype?: StoredDType | ((name: string) => StoredDType)
  /** Added to the header's `__metadata__`, which always says `format: pt`, as Python's loaders expect. */
  metadata?: Readonly<Record<string, string>>
}

type TypeOf = (name: string) => StoredDType

const typesOf = (dtype: WriteOptions['dtype'] = 'F32'): TypeOf => (typeof dtype === 'function' ? dtype : () => dtype)

const elementCount = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1)

/** The type of a tensor in a file whose numbers are of type `dtype`, and the bytes that it takes there. */
const stored = (tensor: WritableTensor, dtype: StoredDType): { dtype: string; byteLength: number } => {
  const count = elementCount(tensor.shape)
  if ('readBytes' in tensor) return { dtype: tensor.dtype === 'int8' ? 'I8' : 'U8', byteLength: count }
  return { dtype, byteLength: count * (dtype === 'F32' ? 4 : 2) }
}

const buildHeader = (tensors: WritableTensors, typeOf: TypeOf, metadata: Readonly<Record<string, string>>) =>
  encodeHeader(
    [...tensors].map(([name, tensor]) => [name, { shape: tensor.shape, ...stored(tensor, typeOf(name)) }]),
    { format: 'pt', ...metadata },
  )

/** Elements that are converted to 16 bits at a time. */
const CHUNK = 1 << 20

const writeTensor = async (
  sink: ByteSink,
  data: Float32Array | Uint8Array | Int8Array,
  dtype: StoredDType,
): Promise<void> => {
  if (!(data instanceof Float32Array) || dtype === 'F32') {
    await sink(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    return
  }
  const encode = dtype === 'F16' ? encodeFloat16 : encodeBFloat16
  const scratch = new Uint16Array(Math.min(CHUNK, data.length))
  for (let start = 0; start < data.length; start += CHUNK) {
    const part = data.subarray(start, start + CHUNK)
    encode(part, scratch)
    await sink(new Uint8Array(scratch.buffer, 0, 2 * part.length))
  }
}

/**
 * Writes a safetensors file atomically, tensors in the order of the map. F32 is stored bitwise.
 * Throws UserError when a tensor's data do not have the size of its shape.
 */
export const writeSafetensors = async (
  path: string,
  tensors: WritableTensors,
  { dtype, metadata = {} }: WriteOptions = {},
): Promise<void> => {
  const typeOf = typesOf(dtype)
  const header = buildHeader(tensors, typeOf, metadata)
  await writeAtomically(path, async (sink) => {
    await sink(header)
    for (const [name, tensor] of tensors) {
      const data = 'data' in tensor ? tensor.data : await ('readBytes' in tensor ? tensor.readBytes() : tensor.read())
      if (data.length !== elementCount(tensor.shape))
        throw new UserError(
          `${path}: tensor ${JSON.stringify(name)}: ${data.length} values for the shape [${tensor.shape.join(', ')}]`,
        )
      await writeTensor(sink, data, typeOf(name))
    }
  })
}

/** Hugging Face's default size of a shard. */
const MAX_SHARD_BYTES = 5e9

/**
 * Writes `model.safetensors` into `folder`, or, where the model is larger than `maxShardBytes` (default 5 GB),
 * `model-00001-of-0000N.safetensors` … with `model.safetensors.index.json`. A tensor is never split, so one that is
 * larger than a shard has a shard of its own.
 */
export const writeShardedSafetensors = async (
  folder: string,
  tensors: WritableTensors,
  { maxShardBytes = MAX_SHARD_BYTES, ...options }: WriteOptions & { maxShardBytes?: number } = {},
): Promise<void> => {
  const shards: Map<string, WritableTensor>[] = [new Map()]
  let shardBytes = 0
  let totalBytes = 0
  for (const [name, tensor] of tensors) {
    const { byteLength } = stored(tensor, typesOf(options.dtype)(name))
    if (shardBytes > 0 && shardBytes + byteLength > maxShardBytes) {
      shards.push(new Map())
      shardBytes = 0
    }
    shards.at(-1)!.set(name, tensor)
    shardBytes += byteLength
    totalBytes += byteLength
  }
  if (shards.length === 1) {
    await writeSafetensors(join(folder, 'model.safetensors'), tensors, options)
    return
  }
  const number = (n: number): string => String(n).padStart(5, '0')
  const entries: [string, string][] = []
  for (const [i, shard] of shards.entries()) {
    const file = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`
    await writeSafetensors(join(folder, file), shard, options)
    for (const name of shard.keys()) entries.push([name, file])
  }
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(entries) }
  await writeTextAtomically(join(folder, 'model.safetensors.index.json'), `${JSON.stringify(index, null, 2)}\n`)
}
