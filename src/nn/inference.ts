// Loads a program that is only run: the weights are part of the session, which packs them once. Knows no model.
import { encodeFloat16 } from '../checkpoint/float.ts'
import { exportOnnx, type LoadedInput, type Program } from '../graph/program.ts'
import { isMatrixToQuantize, quantizedNames } from '../quant/layout.ts'
import type { Executor, Session, SessionOptions, Weight } from '../runtime/executor.ts'
import {
  type Device,
  type FileRange,
  type InferenceParameter,
  isQuantized,
  type TypedArray,
  type WeightFormat,
} from '../types.ts'

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
  }
  return ranges
}

export interface LoadInferenceOptions extends Pick<SessionOptions, 'optimize'> {
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
  const tensors = new Map<string, { location: string; offset: number; length: number }>()
  const folders = new Set<string>()
  for (const [name, { path, offset, length }] of ranges) {
    const [, folder, location] = /^(.*)[/\\]([^/\\]+)$/.exec(path) as unknown as [string, string, string]
    folders.add(folder)
    tensors.set(name, { location, offset, length })
  }
  if (folders.size > 1) throw new Error(`files to map must be in one folder, are in ${[...folders].join(', ')}`)
  const [externalFolder] = folders
  const exported = exportOnnx(program, { loaded, external: { location: '', tensors } })
  return executor.load(exported.model, {
    ...options,
    weights: weightsOf(weights, exported.loaded),
    ...(externalFolder === undefined ? {} : { externalFolder }),
  })
}

function toFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint16Array(values.length)
  encodeFloat16(values, bits)
  return bits
}

/** The tensors of weights that a program is given when it is loaded, one after the other. */
async function* weightsOf(
  weights: ReadonlyMap<string, InferenceParameter>,
  used: ReadonlyMap<string, readonly LoadedInput[]>,
): AsyncGenerator<Weight> {
  for (const [name, parameter] of weights) {
    const names = quantizedNames(name)
    if (!Object.values(names).some((part) => used.get(part)?.length)) continue
    const values = 'read' in parameter && parameter.read ? await parameter.read() : parameter
    if (!isQuantized(values) && !('data' in values)) throw new Error(`${name} can only be mapped`)
    const parts: [name: string, data: TypedArray | undefined][] = isQuantized(values)
      ? [
          [names.packed, values.packed],
          [names.scales, values.scales],
          [names.zeroPoints, values.zeroPoints],
          [names.minima, values.minima],
        ]
      : [[name, values.data]]
    for (const [part, data] of parts) {
      const uses = used.get(part)
      // What was read for this is given away, what the caller has is copied.
      if (!data || !uses?.length) continue
      const [{ dtype }] = uses
      yield {
        dtype,
        data: dtype === 'float16' ? toFloat16(data as Float32Array) : values === parameter ? data.slice() : data,
        uses,
      }
    }
  }
}
