// Loads a program that is only run: the weights are part of the session, which packs them once. Knows no model.
import { exportOnnx, type Program } from '../graph/program.ts'
import { quantizedNames } from '../quant/layout.ts'
import type { Executor, Session } from '../runtime/executor.ts'
import { type BlockFormat, type InferenceParameter, isQuantized, type TypedArray } from '../types.ts'

/** The formats of the weights that are quantised, as `createWeights` takes them. */
export function formatsOf(weights: ReadonlyMap<string, InferenceParameter>): Map<string, BlockFormat> {
  const formats = new Map<string, BlockFormat>()
  for (const [name, parameter] of weights) if (isQuantized(parameter)) formats.set(name, parameter.format)
  return formats
}

export interface LoadInferenceOptions {
  /**
   * Moves the arrays of the weights into the executor instead of copying them: they are empty afterwards, and to load
   * them again they have to be read again. Default false.
   */
  takeWeights?: boolean
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
  { takeWeights = false }: LoadInferenceOptions = {},
): Promise<Session> {
  const tensors = new Map<string, { location: string; offset: number; length: number }>()
  const files: { path: string; data: Uint8Array }[] = []
  // A file in memory per tensor: one for all would meet the size limit of an array.
  const add = (name: string, values: TypedArray) => {
    const data = ownBytes(values, takeWeights)
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
    } else add(name, parameter.data)
  }
  const { model: onnx } = exportOnnx(program, { external: { location: '', tensors } })
  return executor.load(onnx, { externalData: files })
}

/** The bytes of an array, in a buffer that holds nothing else and may be moved: its own if `take`, else a copy. */
function ownBytes(values: TypedArray, take: boolean): Uint8Array {
  const whole = values.byteLength === values.buffer.byteLength
  const { buffer } = take && whole ? values : values.slice()
  return new Uint8Array(buffer)
}
