// Weights of a session: constants in place of some of its model's inputs, in memory that ONNX Runtime frees once it has packed
// them. Only the interface that edits models takes values by pointer and with the right to free them; the others copy them, all
// at the same time.
import koffi from 'koffi'
import type { Weight } from '../executor.ts'
import { allocator, api, editor, environment, free } from './api.ts'
import { addresses, made, nulTerminated, words } from './memory.ts'
import { freeLargeBlocksAtOnce } from './pages.ts'
import { ownTensor, tensorOver, viewOf } from './values.ts'

/** A weight in ONNX Runtime's memory. */
export interface HeldWeight {
  /** What a session has not taken yet, by the name of the input. */
  values: Map<string, bigint>
  bytes: number
  release(): void
}

/**
 * Copies a weight into ONNX Runtime's memory. One with a single use is the session's, which frees it as soon as it is packed;
 * one with more stays until it is released, which must be after the session.
 */
export function holdWeight({ dtype, data, uses }: Weight): HeldWeight {
  freeLargeBlocksAtOnce()
  const [{ name, shape }] = uses
  const whole = ownTensor(dtype, shape)
  const memory = viewOf(whole).data
  if (memory.length !== data.length) {
    api.ReleaseValue(whole)
    throw new Error(`${name} is [${shape}], its values are ${data.length}`)
  }
  memory.set(data as never)
  const shared = uses.length > 1
  const values = shared
    ? new Map(uses.map((use) => [use.name, tensorOver({ dtype: use.dtype ?? dtype, data: memory, shape: use.shape })]))
    : new Map([[name, whole]])
  return {
    values,
    bytes: memory.byteLength,
    release() {
      for (const value of values.values()) api.ReleaseValue(value)
      values.clear()
      if (shared) api.ReleaseValue(whole)
    },
  }
}

/** ONNX Runtime wants to have copied what is smaller, for shapes may depend on it. */
const SMALLEST_REFERENCE = 128

/** A session of a model, some of whose inputs are constants: the weights. */
export function createSessionWith(weights: readonly HeldWeight[], model: Uint8Array, options: bigint): bigint {
  const session = made((place) =>
    editor.CreateModelEditorSessionFromArray(environment, model, model.length, options, place),
  )
  try {
    addConstants(session, weights)
    editor.FinalizeModelEditorSession(session, options, null)
    return session
  } catch (error) {
    api.ReleaseSession(session)
    throw error
  }
}

/** Makes inputs of a session's model constants. When it returns nothing but the session refers to them. */
function addConstants(session: bigint, weights: readonly HeldWeight[]): void {
  // What is not yet part of something else.
  let graph: bigint | undefined = made((place) => editor.CreateGraph(place))
  let additions: bigint | undefined
  try {
    setInputs(graph, session, new Set(weights.flatMap(({ values }) => [...values.keys()])))
    for (const { values, bytes } of weights)
      for (const [name, value] of values) {
        editor.AddInitializerToGraph(graph, nulTerminated(name), value, bytes >= SMALLEST_REFERENCE)
        values.delete(name)
      }
    const domain = nulTerminated('')
    const opset = new Int32Array(words(1).buffer)
    editor.SessionGetOpsetForDomain(session, domain, opset)
    const domains = addresses([domain])
    additions = made((place) => editor.CreateModel(domains, opset, 1, place))
    editor.AddGraphToModel(additions, graph)
    graph = undefined
    editor.ApplyModelToModelEditorSession(session, additions)
  } finally {
    if (graph) api.ReleaseGraph(graph)
    if (additions) api.ReleaseModel(additions)
  }
}

/** Gives a graph the inputs of a session's model without those that become constants. */
function setInputs(graph: bigint, session: bigint, constants: ReadonlySet<string>): void {
  const names = inputNames(session)
  const known = new Set(names)
  for (const name of constants) if (!known.has(name)) throw new Error(`the model has no input ${name}`)
  const infos = words(names.length)
  let count = 0
  try {
    for (const [i, name] of names.entries()) {
      if (constants.has(name)) continue
      const type = made((place) => api.SessionGetInputTypeInfo(session, i, place))
      try {
        infos[count] = made((place) => editor.CreateValueInfo(nulTerminated(name), type, place))
        count++
      } finally {
        api.ReleaseTypeInfo(type)
      }
    }
    editor.SetGraphInputs(graph, infos, count)
  } finally {
    // Those that the graph has taken are 0.
    for (const info of infos) if (info) api.ReleaseValueInfo(info)
  }
}

/** Names of the inputs that a session's model has, without its constants. */
export function inputNames(session: bigint): string[] {
  const count = Number(made((place) => api.SessionGetInputCount(session, place)))
  return Array.from({ length: count }, (_, i) => {
    const text = made((place) => api.SessionGetInputName(session, i, allocator, place))
    const name = koffi.decode.string(text)
    free(text)
    return name
  })
}
