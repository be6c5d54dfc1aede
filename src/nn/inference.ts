// Loads a program that is only run: the weights are part of the session, which packs them once. Knows no model.
import { exportOnnx, type Program } from '../graph/program.ts'
import { quantizedNames } from '../quant/layout.ts'
import type { Executor, Session, SessionOptions } from '../runtime/executor.ts'
import {
  type BlockFormat,
  type FileRange,
  type InferenceParameter,
  isQuantized,
  type TensorData,
  type TypedArray,
} from '../types.ts'

/** The formats of the weights that are quantised, as `createWeights` takes them. */
export function formatsOf(weights: ReadonlyMap<string, InferenceParameter>): Map<string, BlockFormat> {
  const formats = new Map<string, BlockFormat>()
  for (const [name, parameter] of weights)
    if ('format' in parameter && parameter.format) formats.set(name, parameter.format)
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
    if (parameter.file.minima) ranges.set(names.minima, parameter.file.minima)
  }
  return ranges
}

/**
 * Loads a program whose weights, traced with `formatsOf(weights)`, have the names and shapes `parameters`. Throws where
 * one is missing or has another shape.
 */
export async function loadInference(
  executor: Executor,
  program: Program,
  parameters: ReadonlyMap<string, readonly number[]>,
  weights: ReadonlyMap<string, InferenceParameter>,
  options: Pick<SessionOptions, 'optimize'> = {},
): Promise<Session> {
  const tensors = new Map<string, { location: string; offset: number; length: number }>()
  const files: { path: string; data: Uint8Array }[] = []
  // ONNX Runtime takes external data from memory or from files, not both: beside mapped weights others go into the model.
  const ranges = externalRanges(weights)
  const embed = new Map<string, TensorData>()
  // A file in memory per tensor: one for all would meet the size limit of an array.
  const add = (name: string, values: TypedArray) => {
    const data = new Uint8Array(values.slice().buffer)
    files.push({ path: name, data })
    tensors.set(name, { location: name, offset: 0, length: data.length })
  }
  for (const [name, shape] of parameters) {
    const parameter = weights.get(name)
    if (!parameter || parameter.shape.join() !== shape.join())
      throw new Error(`${name} must be [${shape.join(', ')}], is [${parameter?.shape.join(', ') ?? 'missing'}]`)
    if (isQuantized(parameter)) {
      const names = quantizedNames(name)
      add(names.packed, parameter.packed)
      add(names.scales, parameter.scales)
      if (parameter.zeroPoints) add(names.zeroPoints, parameter.zeroPoints)
      if (parameter.minima) add(names.minima, parameter.minima)
    } else if ('data' in parameter) {
      if (ranges.size > 0) embed.set(name, { dtype: 'float32', shape, data: parameter.data })
      else add(name, parameter.data)
    }
  }
  const folders = new Set<string>()
  for (const [name, { path, offset, length }] of ranges) {
    const [, folder, location] = /^(.*)[/\\]([^/\\]+)$/.exec(path) as unknown as [string, string, string]
    folders.add(folder)
    tensors.set(name, { location, offset, length })
  }
  if (folders.size > 1) throw new Error(`files to map must be in one folder, are in ${[...folders].join(', ')}`)
  const [externalFolder] = folders
  const { model: onnx } = exportOnnx(program, { embed, external: { location: '', tensors } })
  return executor.load(onnx, {
    ...options,
    externalData: files,
    ...(externalFolder === undefined ? {} : { externalFolder }),
  })
}
