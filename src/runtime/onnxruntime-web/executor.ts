// ONNX Runtime in WebAssembly, in the thread that makes it: a worker of a page. Caches and other buffers stay in the module's
// memory, where a program reads and writes them in place, as on Node.
import type { DType } from '../../core/types.ts'
import { exportOnnx, type Program } from '../../graph/program.ts'
import type { Executor, LoadOptions, Resident, Session } from '../executor.ts'
import { allocate, failure, type OrtModule, thrown } from './module.ts'
import { createSession, type WebSession } from './session.ts'
import { bytesOf, bytesPerElement, copyOf, sizeOf } from './tensors.ts'

export interface WebExecutorOptions {
  /** Of ONNX Runtime's pool, as the module was started with. */
  threads: number
  /** The bytes of a file of weights, by the name that programs refer to it with. */
  file(location: string): Uint8Array
}

interface Buffer {
  dtype: DType
  address: number
  bytes: number
}

/** Rewriting of the graph: all of it. */
const ALL_REWRITING = 99
const NO_REWRITING = 0

export function createWebExecutor(module: OrtModule, { threads, file }: WebExecutorOptions): Executor {
  const residents = new Map<string, Buffer>()
  const sessions = new Set<WebSession>()

  function resident(name: string): Buffer {
    const found = residents.get(name)
    if (!found) throw new Error(`no resident buffer ${name}`)
    return found
  }

  /** Sessions do not hold on to a buffer that is gone. */
  function discard(name: string): void {
    for (const session of sessions) session.forget(name)
    const old = residents.get(name)
    if (old) module._free(old.address)
    residents.delete(name)
  }

  function make(name: string, dtype: DType, size: number): Buffer {
    const bytes = size * bytesPerElement(dtype)
    const buffer = { dtype, address: allocate(module, bytes), bytes }
    module.HEAPU8.fill(0, buffer.address, buffer.address + bytes)
    residents.set(name, buffer)
    return buffer
  }

  /** The address of part of a buffer. */
  function partOf({ resident: name, offset = 0, shape }: Resident): { dtype: DType; address: number } {
    const { dtype, address, bytes } = resident(name)
    const size = bytesPerElement(dtype)
    if ((offset + sizeOf(shape)) * size > bytes)
      throw new Error(`resident buffer ${name} ends before ${offset + sizeOf(shape)}`)
    return { dtype, address: address + offset * size }
  }

  async function load(program: Program, options: LoadOptions = {}): Promise<Session> {
    const { constants, files, optimize = true, rewrite } = options
    const lowered = exportOnnx(program, {
      target: 'onnxruntime-web',
      loaded: constants?.names,
      // Not a copy: what is rewritten may add to it.
      external: files && { location: '', tensors: files.tensors },
      rewrite,
    })
    if ([...lowered.loaded.values()].some((uses) => uses.length > 0))
      throw new Error('weights of a program in the browser come from files')
    for (const location of new Set([...(files?.tensors.values() ?? [])].map(({ location }) => location ?? '')))
      module.mountExternalData(location, file(location))
    const model = allocate(module, lowered.model.length)
    let settings = 0
    try {
      module.HEAPU8.set(lowered.model, model)
      const level = optimize ? ALL_REWRITING : NO_REWRITING
      settings = module._OrtCreateSessionOptions(level, true, false, 0, false, 0, 0, 3, 0, 0)
      if (settings === 0) throw failure(module, 'options of a session')
      const handle = await module._OrtCreateSession(model, lowered.model.length, settings)
      if (handle === 0) throw failure(module, `loading ${program.name}`)
      const session = createSession(module, handle, { inputs: new Set(lowered.inputs.map(({ name }) => name)), partOf })
      sessions.add(session)
      return {
        run: async (feeds, fetches, { signal } = {}) => {
          signal?.throwIfAborted()
          return session.run(feeds, fetches)
        },
        bind: async (feeds, fetches) => session.bind(feeds, fetches),
        endProfiling: async () => undefined,
        async release() {
          if (sessions.delete(session)) session.release()
        },
      }
    } catch (error) {
      throw thrown(error)
    } finally {
      module.unmountExternalData()
      if (settings !== 0) module._OrtReleaseSessionOptions(settings)
      module._free(model)
    }
  }

  return {
    threads,
    device: 'cpu',
    load,
    async allocate(name, dtype, content) {
      discard(name)
      if (typeof content === 'number') make(name, dtype, content)
      else module.HEAPU8.set(bytesOf(content), make(name, dtype, content.length).address)
    },
    async resize(names, dtype, size, moves) {
      const width = bytesPerElement(dtype)
      for (const name of names) {
        const old = residents.get(name)
        const { address } = make(name, dtype, size)
        for (const { from, to, length } of moves) {
          const start = old!.address + from * width
          module.HEAPU8.copyWithin(address + to * width, start, start + length * width)
        }
        for (const session of sessions) session.forget(name)
        if (old) module._free(old.address)
      }
    },
    async free(...names) {
      for (const name of names) discard(name)
    },
    async read(name, offset = 0, length) {
      const { dtype, address, bytes } = resident(name)
      const size = bytesPerElement(dtype)
      return copyOf(module, dtype, address + offset * size, length ?? bytes / size - offset)
    },
    async write(name, data, offset = 0) {
      const { address } = resident(name)
      module.HEAPU8.set(bytesOf(data), address + offset * data.BYTES_PER_ELEMENT)
    },
    async move(names, moves, targets = names) {
      for (const [i, name] of names.entries()) {
        const { dtype, address } = resident(name)
        const target = resident(targets[i]!).address
        const size = bytesPerElement(dtype)
        for (const { from, to, length } of moves)
          module.HEAPU8.copyWithin(target + to * size, address + from * size, address + (from + length) * size)
      }
    },
    memory: async () => module.HEAPU8.buffer.byteLength,
    async dispose() {
      for (const session of sessions) session.release()
      sessions.clear()
      for (const name of [...residents.keys()]) discard(name)
    },
  }
}
