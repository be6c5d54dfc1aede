// The safetensors format in memory: a header of JSON, then raw little-endian tensors. Knows no files and no models.
import { type DType, type TensorData, UserError } from '../core/types.ts'
import { checkJsonStructure, isRecord } from './json.ts'

/** The limit of the reference implementation. */
const MAX_HEADER_BYTES = 100_000_000

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

/** A tensor as a header describes it. */
export interface StoredTensor {
  name: string
  dtype: string
  /** Row-major, outermost first. */
  shape: readonly number[]
  file: string
  /** From the beginning of the file. */
  byteOffset: number
  byteLength: number
}

const isIndex = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

export interface Header {
  metadata: Record<string, string>
  tensors: Map<string, StoredTensor>
}

const parseMetadata = (path: string, value: unknown): Record<string, string> => {
  if (value === null) return {}
  if (!isRecord(value)) throw new UserError(`${path}: __metadata__ is not an object`)
  for (const [key, entry] of Object.entries(value))
    if (typeof entry !== 'string') throw new UserError(`${path}: __metadata__.${key} is not a string`)
  return value as Record<string, string>
}

const parseTensor = (
  path: string,
  name: string,
  entry: unknown,
  dataStart: number,
  dataBytes: number,
): StoredTensor => {
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

/** Bytes before the header, which hold its length. */
export const PREFIX_BYTES = 8

/** The length of the header of a file of `size` bytes that begins with `prefix`. */
export const headerLength = (path: string, prefix: Uint8Array, size: number): number => {
  if (size < PREFIX_BYTES)
    throw new UserError(`${path}: not a safetensors file: ${size} bytes are too few for a header`)
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true)
  if (length > BigInt(size - PREFIX_BYTES))
    throw new UserError(
      `${path}: not a safetensors file, or a truncated one: it announces a header of ${length} bytes and has ${size} in all`,
    )
  if (length > BigInt(MAX_HEADER_BYTES))
    throw new UserError(`${path}: a header of ${length} bytes is larger than the ${MAX_HEADER_BYTES} that are accepted`)
  return Number(length)
}

/** Checks the header `bytes` of a file of `size` bytes. Throws UserError naming file and tensor. */
export const parseHeader = (path: string, bytes: Uint8Array, size: number): Header => {
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

  const dataStart = PREFIX_BYTES + bytes.length
  const dataBytes = size - dataStart
  const tensors = new Map<string, StoredTensor>()
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

/** The types of tensors that can be held, by their names in the format. */
const heldTypes = {
  F32: ['float32', Float32Array],
  F16: ['float16', Uint16Array],
  I64: ['int64', BigInt64Array],
  I32: ['int32', Int32Array],
  I8: ['int8', Int8Array],
  U8: ['uint8', Uint8Array],
  BOOL: ['bool', Uint8Array],
} as const

const typeNames = Object.fromEntries(Object.entries(heldTypes).map(([name, [dtype]]) => [dtype, name])) as Record<
  DType,
  keyof typeof heldTypes
>

/** What a header says of a tensor that follows it. */
export interface HeaderEntry {
  dtype: string
  shape: readonly number[]
  byteLength: number
}

/** The beginning of a file, up to its tensors, which lie behind it in the order of the entries. */
export const encodeHeader = (
  tensors: Iterable<readonly [name: string, entry: HeaderEntry]>,
  metadata: Readonly<Record<string, string>>,
): Uint8Array => {
  let offset = 0
  // Entries, not an object literal: a tensor may be called __proto__, and numeric names must keep their place.
  const entries = [`"__metadata__":${JSON.stringify(metadata)}`]
  for (const [name, { dtype, shape, byteLength }] of tensors) {
    if (name === '__metadata__') throw new UserError('a tensor cannot be called __metadata__ in a safetensors file')
    const end = offset + byteLength
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [offset, end] })}`)
    offset = end
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`)
  // Spaces pad the header so that the data begin at a multiple of eight.
  const padded = new Uint8Array(PREFIX_BYTES + Math.ceil(json.length / 8) * 8).fill(0x20)
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - PREFIX_BYTES), true)
  padded.set(json, PREFIX_BYTES)
  return padded
}

/** A whole file of tensors. */
export const encodeTensors = (tensors: ReadonlyMap<string, TensorData>): Uint8Array => {
  const entries = [...tensors].map(([name, { dtype, shape, data }]) => {
    return [name, { dtype: typeNames[dtype], shape, byteLength: data.byteLength }] as const
  })
  const header = encodeHeader(entries, {})
  const size = entries.reduce((sum, [, { byteLength }]) => sum + byteLength, header.length)
  const bytes = new Uint8Array(size)
  bytes.set(header)
  let offset = header.length
  for (const { data } of tensors.values()) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset)
    offset += data.byteLength
  }
  return bytes
}

/** The tensors of a whole file. Throws UserError naming `path` and the tensor where something is not right. */
export const decodeTensors = (path: string, content: Uint8Array): Map<string, TensorData> => {
  // A Buffer's own slice would be a view of it.
  const bytes = new Uint8Array(content.buffer, content.byteOffset, content.byteLength)
  const start = PREFIX_BYTES + headerLength(path, bytes, bytes.length)
  const { tensors } = parseHeader(path, bytes.subarray(PREFIX_BYTES, start), bytes.length)
  return new Map(
    [...tensors].map(([name, info]) => {
      const [dtype, View] = heldType(info)
      const copy = bytes.slice(info.byteOffset, info.byteOffset + info.byteLength)
      return [name, { dtype, shape: info.shape, data: new View(copy.buffer) }]
    }),
  )
}

/** How a tensor is held. Throws UserError for a type that is not. */
export const heldType = (info: StoredTensor): readonly [DType, new (buffer: ArrayBuffer) => TensorData['data']] => {
  if (!Object.hasOwn(heldTypes, info.dtype))
    throw new UserError(
      `${info.file}: tensor ${info.name}: dtype ${info.dtype} is not supported; ${Object.keys(heldTypes).join(', ')} are`,
    )
  return heldTypes[info.dtype as keyof typeof heldTypes]
}
