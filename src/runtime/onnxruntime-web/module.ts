// ONNX Runtime compiled to WebAssembly, called directly: the exports that onnxruntime-web's own JavaScript calls. That JavaScript
// copies every input into the module's memory and every output out of it, the caches in each forward too; buffers that stay in
// that memory need neither. onnxruntime-web keeps these exports from one minor version to the next, not longer: package.json
// names the version.
import { UserError } from '../../core/types.ts'

/** What is used of the module. Addresses are numbers of bytes in its memory; 0 is none. */
export interface OrtModule {
  readonly HEAPU8: Uint8Array
  _malloc(bytes: number): number
  _free(address: number): void
  stackSave(): number
  stackRestore(stack: number): void
  stackAlloc(bytes: number): number
  getValue(address: number, type: 'i32' | '*'): number
  setValue(address: number, value: number, type: 'i32' | '*'): void
  UTF8ToString(address: number): string
  lengthBytesUTF8(text: string): number
  stringToUTF8(text: string, address: number, bytes: number): void
  /** Values of external data, which are read while a session is made. */
  mountExternalData(path: string, data: Uint8Array): void
  unmountExternalData(): void

  _OrtInit(threads: number, logLevel: number): number
  _OrtGetLastError(code: number, message: number): number
  _OrtCreateSessionOptions(
    optimization: number,
    arena: boolean,
    memoryPattern: boolean,
    executionMode: number,
    profiling: boolean,
    profilePrefix: number,
    logId: number,
    logSeverity: number,
    logVerbosity: number,
    optimizedModelPath: number,
  ): number
  _OrtReleaseSessionOptions(options: number): number
  _OrtCreateSession(model: number, bytes: number, options: number): number | Promise<number>
  _OrtReleaseSession(session: number): number
  _OrtCreateTensor(type: number, data: number, bytes: number, dims: number, rank: number, location: number): number
  _OrtGetTensorData(tensor: number, type: number, data: number, dims: number, rank: number): number
  _OrtReleaseTensor(tensor: number): number
  _OrtRun(
    session: number,
    inputNames: number,
    inputs: number,
    inputCount: number,
    outputNames: number,
    outputCount: number,
    outputs: number,
    options: number,
  ): number | Promise<number>
  _OrtFree(address: number): number
}

/** The default export of onnxruntime-web's `ort-wasm-simd-threaded.mjs`. */
export type OrtModuleFactory = (settings: {
  numThreads: number
  locateFile?: (name: string) => string
}) => Promise<OrtModule>

/** Only errors are logged. */
const LOG_LEVEL = 3

/**
 * Starts the module with a pool of `threads`, which must be 1 where memory cannot be shared; `wasm`: address of
 * `ort-wasm-simd-threaded.wasm`, by default beside the factory's own file.
 */
export async function startModule(
  factory: OrtModuleFactory,
  { threads, wasm }: { threads: number; wasm?: string },
): Promise<OrtModule> {
  const module = await factory({ numThreads: threads, ...(wasm === undefined ? {} : { locateFile: () => wasm }) })
  check(module, module._OrtInit(threads, LOG_LEVEL), 'starting')
  return module
}

/** Throws what ONNX Runtime says where a call did not return 0. */
export function check(module: OrtModule, code: number, what: string): void {
  if (code !== 0) throw failure(module, what)
}

/** ONNX Runtime's last error, as a UserError where memory was short. */
export function failure(module: OrtModule, what: string): Error {
  const stack = module.stackSave()
  const place = module.stackAlloc(8)
  module._OrtGetLastError(place, place + 4)
  const message = module.UTF8ToString(module.getValue(place + 4, '*'))
  module.stackRestore(stack)
  return isShortage(message) ? outOfMemory() : new Error(`ONNX Runtime, ${what}: ${message}`)
}

const isShortage = (message: string): boolean => /bad_alloc|out of memory|failed to allocate/i.test(message)

/** What a call threw: UserError where memory was short. */
export const thrown = (error: unknown): unknown =>
  isShortage(error instanceof Error ? error.message : String(error)) ? outOfMemory() : error

export const outOfMemory = (): UserError =>
  new UserError(
    'there is not enough memory for this model: close other tabs, or take one in fewer bits (unmask quantize --bits 4)',
  )

/** Memory of the module, zeroed or not. Throws UserError where there is none left. */
export function allocate(module: OrtModule, bytes: number): number {
  const address = module._malloc(Math.max(bytes, 1))
  if (address === 0) throw outOfMemory()
  return address
}

/** A text that ends with a 0, until it is freed. */
export function textAt(module: OrtModule, text: string): number {
  const bytes = module.lengthBytesUTF8(text) + 1
  const address = allocate(module, bytes)
  module.stringToUTF8(text, address, bytes)
  return address
}
