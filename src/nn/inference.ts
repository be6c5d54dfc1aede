// Loads a program that is only run: the weights are part of the session, which packs them once. Knows no model.

import {
  type Device,
  type DType,
  type FileRange,
  type InferenceParameter,
  isQuantized,
  type Parameter,
  type QuantizedParameter,
  type TypedArray,
  type WeightFormat,
} from '../core/types.ts'
import { encodeFloat16 } from '../formats/float.ts'
import type { LoadedInput, Program } from '../graph/program.ts'
import { flipSigns, isMatrixToQuantize, quantizedNames, type StoredNames } from '../quant/layout.ts'
import type { Executor, LoadOptions, Session, Weight } from '../runtime/executor.ts'
import { joinedName, joinNodes } from './join.ts'

/**
 * The formats in which a device has weights, as `createWeights` takes them: those that are quantised stay so, and where it is
 * not the processor, which computes in float32 only, the other matrices become float16.
 */
export function formatsOf(
  weights: ReadonlyMap<string, InferenceParameter>,
  device: Device = 'cpu',
): Map<string, WeightFormat> {
  const formats = new Map<string, WeightFormat>()
  for (const [name, parameter] of weights) {
    const quantized = 'format' in parameter ? parameter.format : undefined
    const readable = 'data' in parameter || ('read' in parameter && parameter.read)
    if (quantized) formats.set(name, quantized)
    else if (device !== 'cpu' && readable && isMatrixToQuantize(name, parameter.shape)) formats.set(name, 'float16')
  }
  return formats
}

/** Where the tensors of weights that stay in files lie, by the names that programs give them. */
export function externalRanges(weights: ReadonlyMap<string, InferenceParameter>): Map<string, FileRange> {
  const ranges = new Map<string, FileRange>()
  for (const [name, parameter] of weights) {
    if (!('file' in parameter)) continue
    if ('data' in parameter.file) {
      ranges.set(name, parameter.file.data)
      continue
    }
    const names = quantizedNames(name)
    ranges.set(names.packed, parameter.file.packed)
    ranges.set(names.scales, parameter.file.scales)
    if (parameter.file.zeroPoints) ranges.set(names.zeroPoints, parameter.file.zeroPoints)
    if (parameter.file.offsets) ranges.set(names.offsets, parameter.file.offsets)
  }
  return ranges
}

export interface LoadInferenceOptions extends Pick<LoadOptions, 'optimize'> {
  formats?: ReadonlyMap<string, WeightFormat>
}

/**
 * Loads a program whose weights have the names and shapes `parameters`, and the formats with which it was traced. Default:
 * `formatsOf(weights)`. Throws where one is missing or has another shape.
 */
export async function loadInference(
  executor: Executor,
  program: Program,
  parameters: ReadonlyMap<string, readonly number[]>,
  weights: ReadonlyMap<string, InferenceParameter>,
  { formats = new Map(), ...options }: LoadInferenceOptions = {},
): Promise<Session> {
  const half = new Set([...formats].filter(([, format]) => format === 'float16').map(([name]) => name))
  const ranges = externalRanges(new Map([...weights].filter(([name]) => !half.has(name))))
  const loaded = new Set<string>()
  for (const [name, shape] of parameters) {
    const parameter = weights.get(name)
    if (!parameter || parameter.shape.join() !== shape.join())
      throw new Error(`${name} must be [${shape.join(', ')}], is [${parameter?.shape.join(', ') ?? 'missing'}]`)
    if (!('file' in parameter) || half.has(name))
      for (const part of Object.values(quantizedNames(name))) loaded.add(part)
  }
  const tensors = new Map<string, Range>()
  const folders = new Set<string>()
  for (const [name, { path, offset, length }] of ranges) {
    const [, folder, location] = /^(.*)[/\\]([^/\\]+)$/.exec(path) as unknown as [string, string, string]
    folders.add(folder)
    tensors.set(name, { location, offset, length })
  }
  if (folders.size > 1) throw new Error(`files to map must be in one folder, are in ${[...folders].join(', ')}`)
  const [externalFolder] = folders
  const joins = new Map<string, readonly string[]>()
  const mayJoin = (names: readonly string[]): boolean => {
    const mapped = names.filter((name) => 'file' in weights.get(name)!)
    if (mapped.length > 0 && mapped.length < names.length) return false
    const parts = Object.entries(quantizedNames(joinedName(names))) as [keyof StoredNames, string][]
    if (mapped.length > 0) {
      const joined = parts.flatMap(([key, part]) => {
        const pieces = names.flatMap((name) => tensors.get(quantizedNames(name)[key]) ?? [])
        return pieces.length > 0 ? [{ part, range: oneRange(pieces) }] : []
      })
      if (joined.some(({ range }) => !range)) return false
      for (const { part, range } of joined) if (range) tensors.set(part, range)
    } else {
      for (const [, part] of parts) loaded.add(part)
      joins.set(joinedName(names), names)
    }
    return true
  }
  return executor.load(program, {
    ...options,
    constants: { names: loaded, values: (used) => weightsOf(weights, [...joins.values()], used) },
    files: externalFolder === undefined ? undefined : { folder: externalFolder, tensors },
    rewrite: (nodes) => joinNodes(nodes, mayJoin),
  })
}

interface Range {
  location: string
  offset: number
  length: number
}

/** Ranges of a file that follow each other as one; undefined where they do not. */
function oneRange(pieces: readonly Range[]): Range | undefined {
  const [{ location, offset }] = pieces
  let length = 0
  for (const piece of pieces) {
    if (piece.location !== location || piece.offset !== offset + length) return undefined
    length += piece.length
  }
  return { location, offset, length }
}

/** The tensors of weights that a program is given when it is loaded, one parameter, or those that are joined, at a time. */
async function* weightsOf(
  weights: ReadonlyMap<string, InferenceParameter>,
  joins: readonly (readonly string[])[],
  used: ReadonlyMap<string, readonly LoadedInput[]>,
): AsyncGenerator<Weight> {
  for (const names of [...[...weights.keys()].map((name) => [name]), ...joins]) {
    const stored = quantizedNames(joinedName(names))
    if (!Object.values(stored).some((part) => used.get(part)?.length)) continue
    const members = await Promise.all(names.map((name) => valuesOf(name, weights.get(name)!)))
    const own = members.every((member, i) => member !== weights.get(names[i]))
    for (const key of ['packed', 'scales', 'zeroPoints', 'offsets', 'data'] as const) {
      const uses = used.get(key === 'data' ? stored.packed : stored[key])
      const parts = members.flatMap((member) => (member as Partial<Record<typeof key, TypedArray>>)[key] ?? [])
      if (parts.length === 0 || !uses?.length) continue
      const [{ dtype }] = uses
      yield { dtype, data: ofType(dtype, parts, own), uses }
    }
  }
}

/** A parameter's values: read where they are not there, which can only be asked of what may be read. */
async function valuesOf(name: string, parameter: InferenceParameter): Promise<Parameter | QuantizedParameter> {
  if ('read' in parameter && parameter.read) return parameter.read()
  if (isQuantized(parameter) || 'data' in parameter) return parameter
  throw new Error(`${name} can only be mapped`)
}

/** The values of all parts as a program has them, in an array that may be given away. */
function ofType(dtype: DType, parts: readonly TypedArray[], own: boolean): TypedArray {
  if (dtype === 'float16') return toFloat16(parts[0] as Float32Array)
  const all = together(parts, own)
  if (dtype !== 'int8') return all
  const signed = new Int8Array(all.buffer, all.byteOffset, all.length)
  flipSigns(signed)
  return signed
}

function toFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint16Array(values.length)
  encodeFloat16(values, bits)
  return bits
}

/** The values of all parts in an array that may be given away: a part's own where it is the only one and nobody else's. */
function together(parts: readonly TypedArray[], own: boolean): TypedArray {
  if (parts.length === 1) return own ? parts[0] : parts[0].slice()
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  const all = new (parts[0].constructor as new (length: number) => TypedArray)(length)
  let offset = 0
  for (const part of parts) {
    all.set(part as never, offset)
    offset += part.length
  }
  return all
}
