// ONNX Runtime's C API, as far as it is needed here, called through koffi. The package onnxruntime-node brings the library; its
// own binding copies every output into a new buffer, also one that was given a place, which costs a training step its
// parameters, gradients and moments once more. Plain JavaScript, as the worker is. It knows tensors, not models.
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import koffi from 'koffi'

/** @typedef {import('../types.ts').DType} DType */
/** @typedef {import('../types.ts').TypedArray} TypedArray */
/** @typedef {{ dtype: DType, data: TypedArray, shape: readonly number[] }} Value Values that ONNX Runtime reads, or writes. */
/** @typedef {{ dtype: DType, shape: number[], data: TypedArray }} Output A view of ONNX Runtime's memory. */

/**
 * @typedef {object} SessionOptions
 * @property {number} threads
 * @property {import('../types.ts').Device} device
 * @property {boolean} optimize ONNX Runtime's rewriting of the graph.
 * @property {ReturnType<typeof createWeight>[]} weights Of inputs that are to be constants; the session's from now on.
 * @property {Record<string, string>} config Entries by ONNX Runtime's names.
 * @property {string} [profile] File prefix of a profile.
 */

/** The first version of the API that has all that is used here. Its table only grows from version to version. */
const API_VERSION = 22

// A call runs on koffi's own stack: as much as a thread has.
koffi.config({ sync_stack_size: 8 * 2 ** 20 })

/** Name -> place in the table of functions (struct OrtApi) and the types of its arguments; most give a status. */
const functions = /** @type {const} */ ({
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
})

/** The same of struct OrtModelEditorApi. */
const editorFunctions = /** @type {const} */ ({
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
})

/** ONNX's numbers of element types. */
const elementTypes = { float32: 1, uint8: 2, int8: 3, int32: 6, int64: 7, bool: 9, float16: 10 }
const dtypes = new Map(Object.entries(elementTypes).map(([dtype, number]) => [number, /** @type {DType} */ (dtype)]))

/** What values of a type are in JavaScript. */
export const arrays = {
  float32: Float32Array,
  float16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
}

function libraryPath() {
  const root = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'))
  const [napi] = readdirSync(join(root, 'bin')).filter((name) => name.startsWith('napi-'))
  const folder = join(root, 'bin', napi, process.platform, process.arch)
  const file = { win32: 'onnxruntime.dll', darwin: 'libonnxruntime.1.dylib' }[/** @type {string} */ (process.platform)]
  return join(folder, file ?? 'libonnxruntime.so.1')
}

// The library reports each session to its maker, from 1.30 on also on Linux, unless told not to before it is loaded.
process.env.ORT_DISABLE_TELEMETRY ??= '1'

/** Exported because koffi unloads a library that nothing refers to; pointers to its functions do not count. */
export const library = koffi.load(libraryPath())
const base = library.func('OrtGetApiBase', 'void *', [])()
const getApi = koffi.decode(pointersAt(base, 1)[0], koffi.proto('void *', ['uint32_t']))
const api = callable(functions, getApi(API_VERSION))
const editor = callable(editorFunctions, api.GetModelEditorApi())

/**
 * Functions of a table; where a status says that something failed, they throw.
 * @template {string} Name
 * @param {Record<Name, readonly [index: number, args: readonly string[], result?: string]>} wanted
 * @param {bigint} address
 * @returns {Record<Name, (...args: unknown[]) => any>}
 */
function callable(wanted, address) {
  /** @type {[Name, readonly [index: number, args: readonly string[], result?: string]][]} */
  const entries = /** @type {never} */ (Object.entries(wanted))
  const table = pointersAt(address, Math.max(...entries.map(([, [index]]) => index)) + 1)
  const calls = entries.map(([name, [index, args, result]]) => {
    const call = koffi.decode(table[index], koffi.proto(result ?? 'void *', [...args]))
    return [name, result ? call : (/** @type {unknown[]} */ ...values) => check(call(...values))]
  })
  return Object.fromEntries(calls)
}

/** @param {bigint} address @param {number} count */
function pointersAt(address, count) {
  return new BigUint64Array(koffi.view(address, 8 * count))
}

/** @param {bigint | null} status */
function check(status) {
  if (!status) return
  const message = api.GetErrorMessage(status)
  api.ReleaseStatus(status)
  throw new Error(message)
}

/** What a function writes where its last argument points. @param {(place: BigUint64Array) => void} call */
function made(call) {
  const place = words(1)
  call(place)
  return place[0]
}

/**
 * The names or the values of both.
 * @typedef {{ parts: readonly unknown[], names: BigUint64Array, values: BigUint64Array }} Prepared
 * @param {Prepared} a @param {Prepared} b @param {'names' | 'values'} which
 */
function joined(a, b, which) {
  const all = words(a.parts.length + b.parts.length)
  all.set(a[which].subarray(0, a.parts.length))
  all.set(b[which].subarray(0, b.parts.length), a.parts.length)
  return all
}

/** Room for `count` words that V8 does not move: what is small it keeps, and moves, in its own heap. @param {number} count */
const words = (count) => new BigUint64Array(Math.max(16, count))

/**
 * Where the values of an array lie. V8 does not move them once the array has a buffer of its own, for which `.buffer` asks.
 * @param {TypedArray | Uint8Array} array
 */
function addressOf(array) {
  return koffi.address(array.buffer) + BigInt(array.byteOffset)
}

/** @param {string} text */
const nulTerminated = (text) => Buffer.from(`${text}\0`)

/** Paths are wide on Windows. @param {string} text */
const pathText = (text) => Buffer.from(`${text}\0`, process.platform === 'win32' ? 'utf16le' : 'utf8')

const WARNING = 2
const environment = made((place) => api.CreateEnv(WARNING, 'unmask', place))
api.DisableTelemetryEvents(environment)
const allocator = made((place) => api.GetAllocatorWithDefaultOptions(place))
const memoryInfo = made((place) => api.CreateCpuMemoryInfo(1, 0, place))

/**
 * Addresses of buffers, which stay reachable as long as this object is.
 * @param {readonly (Uint8Array | Buffer)[]} buffers
 */
function addresses(buffers) {
  const all = words(buffers.length)
  for (const [i, buffer] of buffers.entries()) all[i] = addressOf(buffer)
  return { all, buffers }
}

/**
 * @param {Uint8Array} model ONNX bytes
 * @param {SessionOptions} settings
 */
export function createSession(model, { threads, device, optimize, weights, config, profile }) {
  const options = made((place) => api.CreateSessionOptions(place))
  /** @type {bigint} */
  let session
  try {
    if (device !== 'cpu') useDevice(options, device)
    api.SetIntraOpNumThreads(options, threads)
    api.SetSessionGraphOptimizationLevel(options, optimize ? 99 : 0)
    // With memory patterns the first run's buffers and the planned block are both kept.
    api.DisableMemPattern(options)
    for (const [key, value] of Object.entries(config)) api.AddSessionConfigEntry(options, key, value)
    if (profile) api.EnableProfiling(options, pathText(profile))
    session =
      weights.length > 0
        ? createSessionWith(weights, model, options)
        : made((place) => api.CreateSessionFromArray(environment, model, model.length, options, place))
  } finally {
    api.ReleaseSessionOptions(options)
  }
  giveBack(config[FOLDER])
  const inputs = new Set(inputNames(session))
  /** @type {Map<string, Buffer>} */
  const names = new Map()
  const nameOf = (/** @type {string} */ name) => {
    const known = names.get(name) ?? nulTerminated(name)
    names.set(name, known)
    return known
  }

  /**
   * Names and tensors as the C API takes them; null stands for an output that ONNX Runtime makes.
   * @param {[name: string, value: Value | null][]} parts
   */
  function prepare(parts) {
    const [names, values] = [words(parts.length), words(parts.length)]
    const release = () => {
      for (const value of values) if (value) api.ReleaseValue(value)
    }
    try {
      for (const [i, [name, value]] of parts.entries()) {
        names[i] = addressOf(nameOf(name))
        if (value) values[i] = tensor(value)
      }
    } catch (error) {
      release()
      throw error
    }
    // The memory of the values stays reachable with `parts`.
    return { parts, names, values, release }
  }
  const inputsOf = (/** @type {Record<string, Value>} */ feeds) =>
    prepare(Object.entries(feeds).filter(([name]) => inputs.has(name)))
  let boundInputs = prepare([])
  let boundOutputs = prepare([])

  return {
    /**
     * Runs with `feeds`, of which those that the model does not take are passed over, and what is bound. Outputs with a
     * value are written there; of those with null, `read` gets views that are gone when it returns.
     * @template T
     * @param {Record<string, Value>} feeds
     * @param {Record<string, Value | null>} fetches
     * @param {(outputs: Record<string, Output>) => T} read
     * @returns {T}
     */
    run(feeds, fetches, read) {
      const given = inputsOf(feeds)
      try {
        const fetched = prepare(Object.entries(fetches))
        try {
          const inputNames = joined(boundInputs, given, 'names')
          const inputValues = joined(boundInputs, given, 'values')
          const outputNames = joined(boundOutputs, fetched, 'names')
          const outputValues = joined(boundOutputs, fetched, 'values')
          const inputCount = boundInputs.parts.length + given.parts.length
          const outputCount = boundOutputs.parts.length + fetched.parts.length
          try {
            api.Run(session, null, inputNames, inputValues, inputCount, outputNames, outputCount, outputValues)
          } catch (error) {
            throw withoutHalf(device, error)
          }
          fetched.values.set(outputValues.subarray(boundOutputs.parts.length, outputCount))
          /** @type {Record<string, Output>} */
          const outputs = {}
          for (const [i, [name, value]] of fetched.parts.entries())
            if (!value) outputs[name] = viewOf(fetched.values[i])
          return read(outputs)
        } finally {
          fetched.release()
        }
      } finally {
        given.release()
      }
    },
    /**
     * What all runs have, until the next call: tensors are made once.
     * @param {Record<string, Value>} feeds
     * @param {Record<string, Value>} fetches
     */
    bind(feeds, fetches) {
      const made = [inputsOf(feeds), prepare(Object.entries(fetches))]
      boundInputs.release()
      boundOutputs.release()
      ;[boundInputs, boundOutputs] = made
    },
    endProfiling() {
      free(made((place) => api.SessionEndProfiling(session, allocator, place)))
    },
    release() {
      this.bind({}, {})
      api.ReleaseSession(session)
      for (const weight of weights) weight.release()
    },
  }
}

/**
 * A weight in ONNX Runtime's memory. One with a single use is the session's, which frees it as soon as it is packed; one with
 * more stays until it is released, which must be after the session.
 * @param {import('./protocol.ts').Weight} weight
 */
export function createWeight({ dtype, data, uses }) {
  freeLargeBlocksAtOnce()
  const [{ name, shape }] = uses
  const whole = made((place) =>
    api.CreateTensorAsOrtValue(allocator, dimensionsOf(shape), shape.length, elementTypes[dtype], place),
  )
  const memory = viewOf(whole).data
  if (memory.length !== data.length) {
    api.ReleaseValue(whole)
    throw new Error(`${name} is [${shape}], its values are ${data.length}`)
  }
  memory.set(/** @type {never} */ (data))
  const shared = uses.length > 1
  /** What a session has not taken yet, by the name of the input. */
  const values = new Map(
    shared ? uses.map((use) => [use.name, tensor({ dtype, data: memory, ...use })]) : [[name, whole]],
  )
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

/**
 * A session with constants for some of the model's inputs. The interface that takes them by pointer and with the right to
 * free them is the one that edits models; the others copy them, all at the same time.
 * @param {ReturnType<typeof createWeight>[]} weights
 * @param {Uint8Array} model
 * @param {bigint} options
 */
function createSessionWith(weights, model, options) {
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

/**
 * Makes inputs of a session's model constants. When it returns nothing but the session refers to them.
 * @param {bigint} session
 * @param {ReturnType<typeof createWeight>[]} weights
 */
function addConstants(session, weights) {
  /** What is not yet part of something else. @type {bigint | undefined} */
  let graph = made((place) => editor.CreateGraph(place))
  /** @type {bigint | undefined} */
  let additions
  try {
    setInputs(graph, session, new Set(weights.flatMap(({ values }) => [...values.keys()])))
    for (const { values, bytes } of weights)
      for (const [name, value] of values) {
        editor.AddInitializerToGraph(graph, nulTerminated(name), value, bytes >= SMALLEST_REFERENCE)
        values.delete(name)
      }
    const domains = addresses([nulTerminated('')])
    const opset = new Int32Array(words(1).buffer)
    editor.SessionGetOpsetForDomain(session, domains.buffers[0], opset)
    additions = made((place) => editor.CreateModel(domains.all, opset, 1, place))
    editor.AddGraphToModel(additions, graph)
    graph = undefined
    editor.ApplyModelToModelEditorSession(session, additions)
  } finally {
    if (graph) api.ReleaseGraph(graph)
    if (additions) api.ReleaseModel(additions)
  }
}

/**
 * Gives a graph the inputs of a session's model without those that become constants.
 * @param {bigint} graph
 * @param {bigint} session
 * @param {ReadonlySet<string>} constants
 */
function setInputs(graph, session, constants) {
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

/** The machine has no device of the kind that was asked for, or lacks what it needs. */
export class DeviceError extends Error {}

const NEEDS = {
  webgpu: 'a GPU with a driver for Vulkan (Linux), Direct3D 12 (Windows) or Metal (macOS)',
  cuda:
    'an NVIDIA GPU, CUDA 12 with cuDNN 9, and the libraries that onnxruntime-node fetches on Linux x64 when it is installed ' +
    'with "ONNXRUNTIME_NODE_INSTALL=true npm rebuild onnxruntime-node"',
}

/**
 * Lets the device run what it has kernels for.
 * @param {bigint} options
 * @param {'webgpu' | 'cuda'} device
 */
function useDevice(options, device) {
  try {
    if (device === 'webgpu') api.SessionOptionsAppendExecutionProvider(options, 'WebGPU', null, null, 0)
    else check(library.func('OrtSessionOptionsAppendExecutionProvider_CUDA', 'void *', ['void *', 'int'])(options, 0))
  } catch (error) {
    throw noDevice(device, error)
  }
}

/** @param {unknown} error */
const firstLine = (error) => (error instanceof Error ? error.message : String(error)).split('\n')[0]

/**
 * The error of a run: where it says that the device does not compute in float16, one that says what to do.
 * @param {SessionOptions['device']} device
 * @param {unknown} error
 */
export function withoutHalf(device, error) {
  if (device === 'cpu' || !(error instanceof Error) || !/requires f16/.test(error.message)) return error
  return new DeviceError(
    `--device ${device}: this device, or its driver, does not compute in float16 (WebGPU's feature shader-f16), as matrices ` +
      'that are not quantised need it there; leave --device out, or quantise the model first (unmask quantize). ' +
      `ONNX Runtime says: ${firstLine(error)}`,
  )
}

/** @param {'webgpu' | 'cuda'} device @param {unknown} error */
function noDevice(device, error) {
  const reason = firstLine(error)
  return new DeviceError(
    `--device ${device} cannot be used here; it needs ${NEEDS[device]}. ONNX Runtime says: ${reason}`,
  )
}

/** The session's entry for the folder of mapped files. */
const FOLDER = 'session.model_external_initializers_file_folder_path'

/** madvise's advice that pages are not needed now. */
const MADV_DONTNEED = 4

/** What Linux's C library has for memory. */
const linux = process.platform === 'linux' ? memoryFunctions(koffi.load('libc.so.6')) : undefined

/** @param {ReturnType<typeof koffi.load>} libc */
function memoryFunctions(libc) {
  return {
    mallopt: libc.func('mallopt', 'int', ['int', 'int']),
    trim: libc.func('malloc_trim', 'int', ['size_t']),
    madvise: libc.func('madvise', 'int', ['uintptr_t', 'size_t', 'int']),
  }
}

/** mallopt's name for the size from which on a block is a mapping of its own, and what it is at first. */
const M_MMAP_THRESHOLD = -3
const FIRST_MMAP_THRESHOLD = 128 * 1024

/**
 * Keeps blocks from 128 kB on mappings of their own, as they are in a new process: once a larger one has been freed, glibc
 * takes all up to its size from a heap, where weights that are freed while others are packed leave holes.
 */
function freeLargeBlocksAtOnce() {
  linux?.mallopt(M_MMAP_THRESHOLD, FIRST_MMAP_THRESHOLD)
}

/**
 * Gives memory back to the system that is free once a session is made, on Linux: pages of what was freed on the way, and
 * of mapped files. A session keeps weights packed, and the scales that went into them stay mapped though nobody reads them
 * again. What somebody does read comes back from the file; a mapping with pages of its own is left alone.
 * @param {string | undefined} folder Of mapped files.
 */
function giveBack(folder) {
  linux?.trim(0)
  if (!linux || !folder) return
  const mapping = /^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(\/.*)\n(?:[A-Z].*\n)*?Anonymous: +0 kB$/gm
  for (const [, from, to, path] of readFileSync('/proc/self/smaps', 'utf8').matchAll(mapping)) {
    if (dirname(path) !== folder) continue
    const start = BigInt(`0x${from}`)
    linux.madvise(start, BigInt(`0x${to}`) - start, MADV_DONTNEED)
  }
}

/** @param {bigint} pointer */
const free = (pointer) => api.AllocatorFree(allocator, pointer)

/** @param {bigint} session */
function inputNames(session) {
  const count = Number(made((place) => api.SessionGetInputCount(session, place)))
  return Array.from({ length: count }, (_, i) => {
    const text = made((place) => api.SessionGetInputName(session, i, allocator, place))
    const name = koffi.decode.string(text)
    free(text)
    return name
  })
}

/** @param {readonly number[]} shape */
function dimensionsOf(shape) {
  const dimensions = words(shape.length)
  for (const [i, dimension] of shape.entries()) dimensions[i] = BigInt(dimension)
  return dimensions
}

/** A tensor over values, without a copy. @param {Value} value */
function tensor({ dtype, data, shape }) {
  const size = shape.reduce((a, b) => a * b, 1)
  if (size > data.length) throw new Error(`a tensor of shape [${shape}] needs ${size} values, there are ${data.length}`)
  const bytes = size * data.BYTES_PER_ELEMENT
  return made((place) =>
    api.CreateTensorWithDataAsOrtValue(
      memoryInfo,
      addressOf(data),
      bytes,
      dimensionsOf(shape),
      shape.length,
      elementTypes[dtype],
      place,
    ),
  )
}

/** @param {bigint} value @returns {Output} */
function viewOf(value) {
  const info = made((place) => api.GetTensorTypeAndShape(value, place))
  const number = Number(made((place) => api.GetTensorElementType(info, place)) & 0xffffffffn)
  const rank = Number(made((place) => api.GetDimensionsCount(info, place)))
  const dimensions = words(rank)
  api.GetDimensions(info, dimensions, rank)
  api.ReleaseTensorTypeAndShapeInfo(info)
  const dtype = dtypes.get(number)
  if (!dtype) throw new Error(`an output has the type ${number}, which is not supported`)
  const shape = Array.from(dimensions.subarray(0, rank), Number)
  const size = shape.reduce((a, b) => a * b, 1)
  const array = arrays[dtype]
  if (size === 0) return { dtype, shape, data: new array(0) }
  const data = made((place) => api.GetTensorMutableData(value, place))
  return { dtype, shape, data: new array(koffi.view(data, size * array.BYTES_PER_ELEMENT)) }
}
