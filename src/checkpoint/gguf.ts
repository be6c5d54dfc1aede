// The GGUF container, versions 2 and 3: metadata, tensor descriptions, aligned data. Knows nothing about architectures.

import { type QuantizedParameter, UserError } from '../core/types.ts'
import { emptyQuantized } from '../quant/layout.ts'
import { openFile, type RandomAccessFile } from './file.ts'
import { blockFormatOf, takeBlocks } from './gguf-blocks.ts'
import { otherTypes, quantizedTypes } from './gguf-dequantize.ts'
import type { QuantizedType } from './gguf-type.ts'

type NumericArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array

/** Lists of numbers are typed arrays; lists of bools are bytes. A 64-bit integer is a number where that is exact. */
export type GgufValue = number | bigint | boolean | string | NumericArray | readonly GgufValue[]

export type GgufMetadata = ReadonlyMap<string, GgufValue>

export interface GgufTensor {
  name: string
  type: QuantizedType
  /** Row-major, outermost first: the reverse of the order in the file. */
  shape: readonly number[]
  /** From the start of the file. */
  byteOffset: number
  byteLength: number
}

export interface GgufFile {
  path: string
  metadata: GgufMetadata
  tensors: ReadonlyMap<string, GgufTensor>
  /** A tensor as float32, row-major, rows in the file's order. Throws UserError for an unknown name. */
  read(name: string): Promise<Float32Array>
  /** A matrix of a type with a `blockFormatOf`, its blocks as they are, rows in the file's order. */
  readQuantized(name: string): Promise<QuantizedParameter>
  close(): Promise<void>
}

/** Largest header: a vocabulary of a million tokens with its merges stays far below. */
const MAX_HEADER_BYTES = 256 * 2 ** 20
const FIRST_WINDOW_BYTES = 4 * 2 ** 20
const DEFAULT_ALIGNMENT = 32
/** ggml's GGML_MAX_DIMS. */
const MAX_DIMENSIONS = 4
/** Lists of lists: deeper ones do not occur, and each level costs only twelve bytes of a hostile file. */
const MAX_LIST_DEPTH = 4

/** Thrown when the bytes read so far end before the header does; the reader answers with a larger window. */
class WindowTooSmall extends Error {}

/** Reads the parts of a header from its first bytes, never beyond the end of the file. */
interface Cursor {
  /** Offset of the next byte. */
  position(): number
  /** Refuses a count of items that the rest of the file cannot hold. */
  checkCount(count: number, bytesEach: number, what: string): void
  uint32(what: string): number
  uint64(what: string): number | bigint
  /** A 64-bit count or size; UserError where it is not exact as a number. */
  size(what: string): number
  string(what: string): string
  bytes(length: number, what: string): Uint8Array
  fail(problem: string): never
}

const cursor = (path: string, window: Uint8Array, fileSize: number): Cursor => {
  const view = new DataView(window.buffer, window.byteOffset, window.byteLength)
  const text = new TextDecoder('utf-8', { ignoreBOM: true })
  let at = 0
  const fail = (problem: string): never => {
    throw new UserError(`${path}: ${problem}`)
  }
  const take = (length: number, what: string): number => {
    if (length > fileSize - at)
      fail(`${what} needs ${length} bytes at byte ${at}, the file has ${fileSize - at} left (is it truncated?)`)
    if (at + length > window.byteLength) {
      if (window.byteLength >= MAX_HEADER_BYTES) fail(`the header is larger than ${MAX_HEADER_BYTES} bytes`)
      throw new WindowTooSmall()
    }
    at += length
    return at - length
  }
  const exact = (value: bigint): number | bigint => (value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value)
  const self: Cursor = {
    position: () => at,
    checkCount: (count, bytesEach, what) => {
      if (count * bytesEach > fileSize - at)
        fail(`${what}: ${count} entries do not fit into the file (is it truncated?)`)
    },
    uint32: (what) => view.getUint32(take(4, what), true),
    uint64: (what) => exact(view.getBigUint64(take(8, what), true)),
    size: (what) => {
      const value = self.uint64(what)
      return typeof value === 'number' ? value : fail(`${what}: ${value} is absurd`)
    },
    string: (what) => {
      const length = self.size(what)
      const start = take(length, what)
      return text.decode(window.subarray(start, start + length))
    },
    bytes: (length, what) => {
      const start = take(length, what)
      return window.slice(start, start + length)
    },
    fail,
  }
  return self
}

const STRING = 8
const ARRAY = 9

/** Value types of fixed size, by number: bytes, and how a list of them is held. */
const fixedTypes: ReadonlyMap<number, { bytes: number; list: (buffer: ArrayBuffer) => NumericArray }> = new Map([
  [0, { bytes: 1, list: (b) => new Uint8Array(b) }],
  [1, { bytes: 1, list: (b) => new Int8Array(b) }],
  [2, { bytes: 2, list: (b) => new Uint16Array(b) }],
  [3, { bytes: 2, list: (b) => new Int16Array(b) }],
  [4, { bytes: 4, list: (b) => new Uint32Array(b) }],
  [5, { bytes: 4, list: (b) => new Int32Array(b) }],
  [6, { bytes: 4, list: (b) => new Float32Array(b) }],
  [7, { bytes: 1, list: (b) => new Uint8Array(b) }],
  [10, { bytes: 8, list: (b) => new BigUint64Array(b) }],
  [11, { bytes: 8, list: (b) => new BigInt64Array(b) }],
  [12, { bytes: 8, list: (b) => new Float64Array(b) }],
])
const BOOL = 7

const readFixed = (input: Cursor, type: number, count: number, what: string): NumericArray => {
  const { bytes, list } = fixedTypes.get(type)!
  const values = list(input.bytes(count * bytes, what).buffer as ArrayBuffer)
  if (type === BOOL && (values as Uint8Array).some((byte) => byte > 1)) input.fail(`${what}: a bool is neither 0 nor 1`)
  return values
}

const readScalar = (input: Cursor, type: number, what: string): GgufValue => {
  const value = readFixed(input, type, 1, what)[0]!
  if (type === BOOL) return value === 1
  if (typeof value === 'number') return value
  return Number.isSafeInteger(Number(value)) ? Number(value) : value
}

const readValue = (input: Cursor, type: number, what: string, depth = 0): GgufValue => {
  if (type === STRING) return input.string(what)
  if (type === ARRAY) {
    if (depth === MAX_LIST_DEPTH) input.fail(`${what}: lists nest deeper than ${MAX_LIST_DEPTH}`)
    const itemType = input.uint32(what)
    const count = input.size(what)
    const fixed = fixedTypes.get(itemType)
    if (fixed !== undefined) {
      input.checkCount(count, fixed.bytes, what)
      return readFixed(input, itemType, count, what)
    }
    // A string has a length, a list has a type and a count.
    input.checkCount(count, itemType === ARRAY ? 12 : 8, what)
    const items: GgufValue[] = []
    for (let i = 0; i < count; i++) items.push(readValue(input, itemType, what, depth + 1))
    return items
  }
  if (!fixedTypes.has(type)) input.fail(`${what}: unknown value type ${type}`)
  return readScalar(input, type, what)
}

const readMetadata = (input: Cursor, count: number): Map<string, GgufValue> => {
  const metadata = new Map<string, GgufValue>()
  // The shortest entry: an empty key (8 bytes), a type (4) and one byte.
  input.checkCount(count, 13, 'metadata')
  for (let i = 0; i < count; i++) {
    const key = input.string(`key ${i} of the metadata`)
    if (metadata.has(key)) input.fail(`metadata key ${JSON.stringify(key)} occurs twice`)
    const what = `metadata ${JSON.stringify(key)}`
    metadata.set(key, readValue(input, input.uint32(what), what))
  }
  return metadata
}

/** Reads the tensor descriptions; their offsets count from the start of the data, which is not known yet. */
const readTensors = (input: Cursor, count: number, alignment: number): GgufTensor[] => {
  const tensors: GgufTensor[] = []
  const names = new Set<string>()
  // The shortest description: an empty name (8 bytes), no dimensions (4), a type (4) and an offset (8).
  input.checkCount(count, 24, 'tensors')
  for (let i = 0; i < count; i++) {
    const name = input.string(`name of tensor ${i}`)
    const what = `tensor ${JSON.stringify(name)}`
    if (names.has(name)) input.fail(`${what} occurs twice`)
    names.add(name)
    const dimensions = input.uint32(what)
    if (dimensions === 0 || dimensions > MAX_DIMENSIONS) input.fail(`${what}: ${dimensions} dimensions`)
    const shape: number[] = []
    for (let d = 0; d < dimensions; d++) shape.unshift(input.size(what))
    const elements = shape.reduce((product, size) => product * size, 1)
    const typeNumber = input.uint32(what)
    const byteOffset = input.size(what)
    const type = quantizedTypes.get(typeNumber)
    if (type === undefined) {
      const name = otherTypes.get(typeNumber)
      const type = name === undefined ? `ggml's type number ${typeNumber}, which is not known here` : `the type ${name}`
      return input.fail(`${what} has ${type}; use a file of the model in another type, such as Q8_0, Q4_K_M or F16`)
    }
    if (elements === 0 || !Number.isSafeInteger(elements)) input.fail(`${what}: shape [${shape.join(', ')}] is absurd`)
    if (shape.at(-1)! % type.blockSize !== 0)
      input.fail(`${what}: rows of ${shape.at(-1)} are not whole ${type.name} blocks of ${type.blockSize}`)
    if (byteOffset % alignment !== 0) input.fail(`${what}: offset ${byteOffset} is not a multiple of ${alignment}`)
    tensors.push({ name, type, shape, byteOffset, byteLength: (elements / type.blockSize) * type.blockBytes })
  }
  return tensors
}

interface Header {
  metadata: GgufMetadata
  tensors: Map<string, GgufTensor>
}

const parseHeader = (path: string, window: Uint8Array, fileSize: number): Header => {
  const input = cursor(path, window, fileSize)
  if (new TextDecoder('latin1').decode(input.bytes(4, 'the header')) !== 'GGUF')
    input.fail('not a GGUF file: it does not begin with GGUF')
  const version = input.uint32('the version')
  if (version !== 2 && version !== 3) {
    const why = version > 0xffff ? 'it is big-endian' : `it has version ${version}`
    input.fail(`this GGUF file cannot be read: ${why}; little-endian versions 2 and 3 can`)
  }
  const tensorCount = input.size('the number of tensors')
  const metadataCount = input.size('the number of metadata entries')
  const metadata = readMetadata(input, metadataCount)
  const alignment = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT
  if (typeof alignment !== 'number' || alignment < 1 || alignment > 2 ** 20 || (alignment & (alignment - 1)) !== 0)
    return input.fail(`metadata "general.alignment": ${alignment} is not a power of two up to 2^20`)
  const tensors = readTensors(input, tensorCount, alignment)

  const dataStart = Math.ceil(input.position() / alignment) * alignment
  let previous: GgufTensor | undefined
  for (const tensor of tensors.sort((a, b) => a.byteOffset - b.byteOffset)) {
    tensor.byteOffset += dataStart
    const what = `tensor ${JSON.stringify(tensor.name)}`
    if (previous !== undefined && tensor.byteOffset < previous.byteOffset + previous.byteLength)
      input.fail(`${what} overlaps tensor ${JSON.stringify(previous.name)}`)
    if (tensor.byteOffset + tensor.byteLength > fileSize)
      input.fail(
        `${what}: bytes ${tensor.byteOffset} to ${tensor.byteOffset + tensor.byteLength} are outside the file of ` +
          `${fileSize} bytes (is it truncated?)`,
      )
    previous = tensor
  }
  return { metadata, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])) }
}

const readHeader = async (file: RandomAccessFile): Promise<Header> => {
  for (let wanted = FIRST_WINDOW_BYTES; ; wanted *= 4) {
    const window = new Uint8Array(Math.min(wanted, file.size, MAX_HEADER_BYTES))
    await file.read(0, window)
    try {
      return parseHeader(file.path, window, file.size)
    } catch (error) {
      if (!(error instanceof WindowTooSmall)) throw error
    }
  }
}

/** Bytes that are read and dequantised at a time, rounded to whole blocks. */
const CHUNK_BYTES = 8 * 2 ** 20

/** Room for what a tensor becomes. Throws UserError where that is larger than the platform's largest array. */
const allocate = <T>(file: RandomAccessFile, tensor: GgufTensor, make: () => T): T => {
  try {
    return make()
  } catch (error) {
    if (error instanceof RangeError)
      throw new UserError(`${file.path}: tensor ${tensor.name}: [${tensor.shape.join(', ')}] does not fit into memory`)
    throw error
  }
}

/** Reads the blocks of a tensor in parts; `first` is the number of the first one of a part. */
const readBlocks = async (
  file: RandomAccessFile,
  { type, byteOffset, byteLength }: GgufTensor,
  each: (input: Uint8Array, first: number) => void,
): Promise<void> => {
  const chunkBlocks = Math.floor(CHUNK_BYTES / type.blockBytes)
  const scratch = new Uint8Array(Math.min(byteLength, chunkBlocks * type.blockBytes))
  for (let done = 0; done < byteLength; done += scratch.length) {
    const input = scratch.subarray(0, Math.min(scratch.length, byteLength - done))
    await file.read(byteOffset + done, input)
    each(input, done / type.blockBytes)
  }
}

const readTensor = async (file: RandomAccessFile, tensor: GgufTensor): Promise<Float32Array> => {
  const { type, byteLength } = tensor
  const output = allocate(file, tensor, () => new Float32Array((byteLength / type.blockBytes) * type.blockSize))
  await readBlocks(file, tensor, (input, first) =>
    type.dequantize(
      input,
      output.subarray(first * type.blockSize, (first + input.length / type.blockBytes) * type.blockSize),
    ),
  )
  return output
}

const readQuantized = async (file: RandomAccessFile, tensor: GgufTensor): Promise<QuantizedParameter> => {
  const format = tensor.shape.length === 2 ? blockFormatOf(tensor.type) : undefined
  if (!format) throw new UserError(`${file.path}: tensor ${tensor.name}: ${tensor.type.name} is not read in blocks`)
  const output = allocate(file, tensor, () => emptyQuantized(tensor.shape, format))
  await readBlocks(file, tensor, (input, first) => takeBlocks(tensor.type, input, output, first))
  return output
}

/**
 * Opens a GGUF file. The header is read and checked, weights are not. Throws UserError naming file and tensor or
 * metadata key when anything in it is inconsistent.
 */
export const openGguf = async (path: string): Promise<GgufFile> => {
  const file = await openFile(path)
  try {
    const { metadata, tensors } = await readHeader(file)
    const lookup = (name: string): GgufTensor => {
      const tensor = tensors.get(name)
      if (tensor === undefined) throw new UserError(`${path}: has no tensor ${JSON.stringify(name)}`)
      return tensor
    }
    return {
      path,
      metadata,
      tensors,
      read: async (name) => readTensor(file, lookup(name)),
      readQuantized: async (name) => readQuantized(file, lookup(name)),
      close: () => file.close(),
    }
  } catch (error) {
    await file.close()
    throw error
  }
}
