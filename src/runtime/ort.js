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
 * @property {{ path: string, data: Uint8Array }[]} [externalData] Files in memory that the model's external data name; they are copied.
 * @property {Record<string, string>} config Entries by ONNX Runtime's names.
 * @property {string} [profile] File prefix of a profile.
 */

/** The first version of the API that has all that is used here. Its table only grows from version to version. */
const API_VERSION = 18

// A call runs on koffi's own stack: as much as a thread has.
koffi.config({ sync_stack_size: 8 * 2 ** 20 })

/** Name -> place in the table of functions (struct OrtApi) and the types of its arguments; all give a status, or nothing. */
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
  SessionGetInputName: [36, ['void *', 'size_t', 'void *', 'void *']],
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
  ReleaseTensorTypeAndShapeInfo: [99, ['void *'], 'void'],
  ReleaseSessionOptions: [100, ['void *'], 'void'],
  SessionEndProfiling: [110, ['void *', 'void *', 'void *']],
  AddSessionConfigEntry: [130, ['void *', 'string', 'string']],
  SessionOptionsAppendExecutionProvider: [216, ['void *', 'string', 'void *', 'void *', 'size_t']],
  AddExternalInitializersFromFilesInMemory: [279, ['void *', 'void *', 'void *', 'void *', 'size_t']],
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

/** @type {Record<keyof typeof functions, (...args: unknown[]) => any>} */
const api = /** @type {never} */ ({})
/** Exported because koffi unloads a library that nothing refers to; pointers to its functions do not count. */
export const library = koffi.load(libraryPath())
{
  const base = library.func('OrtGetApiBase', 'void *', [])()
  const getApi = koffi.decode(pointersAt(base, 1)[0], koffi.proto('void *', ['uint32_t']))
  const table = pointersAt(getApi(API_VERSION), Math.max(...Object.values(functions).map(([index]) => index)) + 1)
  for (const [name, [index, args, result]] of Object.entries(functions)) {
    const call = koffi.decode(table[index], koffi.proto(result ?? 'void *', [...args]))
    api[/** @type {keyof typeof functions} */ (name)] = result ? call : (...values) => check(call(...values))
  }
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
export function createSession(model, { threads, device, optimize, externalData, config, profile }) {
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
    if (externalData) {
      const names = addresses(externalData.map(({ path }) => pathText(path)))
      const contents = addresses(externalData.map(({ data }) => data))
      const sizes = words(externalData.length)
      for (const [i, { data }] of externalData.entries()) sizes[i] = BigInt(data.length)
      api.AddExternalInitializersFromFilesInMemory(options, names.all, contents.all, sizes, externalData.length)
    }
    session = made((place) => api.CreateSessionFromArray(environment, model, model.length, options, place))
  } finally {
    api.ReleaseSessionOptions(options)
  }
  if (config[FOLDER]) dropPages(config[FOLDER])
  const inputs = new Set(inputNames(session))
  /** @type {Map<string, Buffer>} */
  const names = new Map()
  const nameOf = (/** @type {string} */ name) => {
    const known = names.get(name) ?? Buffer.from(`${name}\0`)
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
          api.Run(session, null, inputNames, inputValues, inputCount, outputNames, outputCount, outputValues)
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
    },
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

/** @param {'webgpu' | 'cuda'} device @param {unknown} error */
function noDevice(device, error) {
  const [reason] = (error instanceof Error ? error.message : String(error)).split('\n')
  return new DeviceError(
    `--device ${device} cannot be used here; it needs ${NEEDS[device]}. ONNX Runtime says: ${reason}`,
  )
}

/** The session's entry for the folder of mapped files. */
const FOLDER = 'session.model_external_initializers_file_folder_path'

/** madvise's advice that pages are not needed now. */
const MADV_DONTNEED = 4

/**
 * Gives back the pages of mapped files: a session keeps weights packed, and the scales that went into them stay mapped though
 * nobody reads them again. What somebody does read comes back from the file; a mapping with pages of its own is left alone.
 * Elsewhere than on Linux nothing is done.
 * @param {string} folder
 */
function dropPages(folder) {
  if (process.platform !== 'linux') return
  const madvise = koffi.load('libc.so.6').func('madvise', 'int', ['uintptr_t', 'size_t', 'int'])
  const mapping = /^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(\/.*)\n(?:[A-Z].*\n)*?Anonymous: +0 kB$/gm
  for (const [, from, to, path] of readFileSync('/proc/self/smaps', 'utf8').matchAll(mapping)) {
    if (dirname(path) !== folder) continue
    const start = BigInt(`0x${from}`)
    madvise(start, BigInt(`0x${to}`) - start, MADV_DONTNEED)
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

/** A tensor over values, without a copy. @param {Value} value */
function tensor({ dtype, data, shape }) {
  const size = shape.reduce((a, b) => a * b, 1)
  if (size > data.length) throw new Error(`a tensor of shape [${shape}] needs ${size} values, there are ${data.length}`)
  const dimensions = words(shape.length)
  for (const [i, dimension] of shape.entries()) dimensions[i] = BigInt(dimension)
  const bytes = size * data.BYTES_PER_ELEMENT
  return made((place) =>
    api.CreateTensorWithDataAsOrtValue(
      memoryInfo,
      addressOf(data),
      bytes,
      dimensions,
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
