// ONNX Runtime's C API, as far as it is needed here, called through koffi. The binding of onnxruntime-node copies every output
// into a new buffer, also one that was given a place, which costs a training step its parameters, gradients and moments once
// more.
import koffi from 'koffi'
import { library } from './library.ts'
import { made, wordsAt } from './memory.ts'

/** The first version of the API that has all that is used here. Its tables only grow from version to version. */
const API_VERSION = 22

/** The types of arguments, by their names in C. A pointer is an address, or an array that lies there. */
interface Arguments {
  'void *': bigint | ArrayBufferView | null
  string: string
  int: number
  size_t: number
  bool: boolean
}

interface Results {
  'void *': bigint
  string: string
  void: undefined
}

/** Place in a table of functions, types of the arguments, and of the result where that is not a status. */
type Signature = readonly [index: number, args: readonly (keyof Arguments)[], result?: keyof Results]

type Given<A extends readonly (keyof Arguments)[]> = { -readonly [I in keyof A]: Arguments[A[I]] }

type Call<S extends Signature> = (
  ...args: Given<S[1]>
) => S extends readonly [number, unknown, infer R extends keyof Results] ? Results[R] : void

/** Functions of struct OrtApi. */
const functions = {
  GetErrorMessage: [2, ['void *'], 'string'],
  CreateEnv: [3, ['int', 'string', 'void *']],
  DisableTelemetryEvents: [6, ['void *']],
  CreateSessionFromArray: [8, ['void *', 'void *', 'size_t', 'void *', 'void *']],
  Run: [9, ['void *', 'void *', 'void *', 'void *', 'size_t', 'void *', 'size_t', 'void *']],
  CreateSessionOptions: [10, ['void *']],
  EnableProfiling: [14, ['void *', 'void *']],
  DisableMemPattern: [17, ['void *']],
  SetSessionGraphOptimizationLevel: [23, ['void *', 'int']],
  SetIntraOpNumThreads: [24, ['void *', 'int']],
  SessionGetInputCount: [30, ['void *', 'void *']],
  SessionGetInputTypeInfo: [33, ['void *', 'size_t', 'void *']],
  SessionGetInputName: [36, ['void *', 'size_t', 'void *', 'void *']],
  CreateTensorAsOrtValue: [48, ['void *', 'void *', 'size_t', 'int', 'void *']],
  CreateTensorWithDataAsOrtValue: [49, ['void *', 'void *', 'size_t', 'void *', 'size_t', 'int', 'void *']],
  GetTensorMutableData: [51, ['void *', 'void *']],
  GetTensorElementType: [60, ['void *', 'void *']],
  GetDimensionsCount: [61, ['void *', 'void *']],
  GetDimensions: [62, ['void *', 'void *', 'size_t']],
  GetTensorTypeAndShape: [65, ['void *', 'void *']],
  CreateCpuMemoryInfo: [69, ['int', 'int', 'void *']],
  AllocatorFree: [76, ['void *', 'void *']],
  GetAllocatorWithDefaultOptions: [78, ['void *']],
  ReleaseStatus: [93, ['void *'], 'void'],
  ReleaseSession: [95, ['void *'], 'void'],
  ReleaseValue: [96, ['void *'], 'void'],
  ReleaseTypeInfo: [98, ['void *'], 'void'],
  ReleaseTensorTypeAndShapeInfo: [99, ['void *'], 'void'],
  ReleaseSessionOptions: [100, ['void *'], 'void'],
  SessionEndProfiling: [110, ['void *', 'void *', 'void *']],
  AddSessionConfigEntry: [130, ['void *', 'string', 'string']],
  SessionOptionsAppendExecutionProvider: [216, ['void *', 'string', 'void *', 'void *', 'size_t']],
  ReleaseValueInfo: [285, ['void *'], 'void'],
  ReleaseGraph: [287, ['void *'], 'void'],
  ReleaseModel: [288, ['void *'], 'void'],
  GetModelEditorApi: [291, [], 'void *'],
} as const satisfies Record<string, Signature>

/** Functions of struct OrtModelEditorApi. */
const editorFunctions = {
  CreateValueInfo: [5, ['void *', 'void *', 'void *']],
  CreateGraph: [7, ['void *']],
  SetGraphInputs: [8, ['void *', 'void *', 'size_t']],
  AddInitializerToGraph: [10, ['void *', 'void *', 'void *', 'bool']],
  CreateModel: [12, ['void *', 'void *', 'size_t', 'void *']],
  AddGraphToModel: [13, ['void *', 'void *']],
  CreateModelEditorSessionFromArray: [16, ['void *', 'void *', 'size_t', 'void *', 'void *']],
  SessionGetOpsetForDomain: [17, ['void *', 'void *', 'void *']],
  ApplyModelToModelEditorSession: [18, ['void *', 'void *']],
  FinalizeModelEditorSession: [19, ['void *', 'void *', 'void *']],
} as const satisfies Record<string, Signature>

const base = library.func('OrtGetApiBase', 'void *', [])()
const getApi = koffi.decode(wordsAt(base, 1)[0], koffi.proto('void *', ['uint32_t']))

export const api = callable(functions, getApi(API_VERSION))
export const editor = callable(editorFunctions, api.GetModelEditorApi())

/** The functions that a table at `address` has; where a status says that something failed, they throw. */
function callable<T extends Record<string, Signature>>(
  wanted: T,
  address: bigint,
): { [Name in keyof T]: Call<T[Name]> } {
  const places = Object.values(wanted).map(([index]) => index)
  const table = wordsAt(address, Math.max(...places) + 1)
  const calls = Object.entries(wanted).map(([name, [index, args, result]]) => {
    const call = koffi.decode(table[index], koffi.proto(result ?? 'void *', [...args]))
    return [name, result ? call : (...values: unknown[]) => check(call(...values))]
  })
  return Object.fromEntries(calls)
}

/** Throws where a status says that something failed. */
export function check(status: bigint | null): void {
  if (!status) return
  const message = api.GetErrorMessage(status)
  api.ReleaseStatus(status)
  throw new Error(message)
}

const WARNING = 2

export const environment = made((place) => api.CreateEnv(WARNING, 'unmask', place))
api.DisableTelemetryEvents(environment)

export const allocator = made((place) => api.GetAllocatorWithDefaultOptions(place))

/** Gives back what the allocator made. */
export const free = (pointer: bigint): void => api.AllocatorFree(allocator, pointer)
