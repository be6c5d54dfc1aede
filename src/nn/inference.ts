// Loads a program that is only run: the weights are part of the session, which packs them once. Knows no model.
import { exportOnnx, type LoadedInput, type Program } from '../graph/program.ts'
import { quantizedNames } from '../quant/layout.ts'
import type { Executor, Session, SessionOptions, Weight } from '../runtime/executor.ts'
import { type BlockFormat, type FileRange, type InferenceParameter, isQuantized, type TypedArray } from '../types.ts'

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
  const ranges = externalRanges(weights)
  const loaded = new Set<string>()
  for (const [name, shape] of parameters) {
    const parameter = weights.get(name)
    if (!parameter || parameter.shape.join() !== shape.join())
      throw new Error(`${name} must be [${shape.join(', ')}], is [${parameter?.shape.join(', ') ?? 'missing'}]`)
    if (!('file' in parameter)) for (const part of Object.values(quantizedNames(name))) loaded.add(part)
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

/** The tensors of weights that a program uses and that stay in no file, one after the other. */
async function* weightsOf(
  weights: ReadonlyMap<string, InferenceParameter>,
  used: ReadonlyMap<string, readonly LoadedInput[]>,
): AsyncGenerator<Weight> {
  for (const [name, parameter] of weights) {
    const names = quantizedNames(name)
    if ('file' in parameter || !Object.values(names).some((part) => used.get(part)?.length)) continue
    const stored = 'read' in parameter
    const values = stored ? await parameter.read() : parameter
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
      if (data && uses?.length) yield { dtype: uses[0].dtype, data: stored ? data : data.slice(), uses }
    }
  }
}
