// From the address or the files of a model to one that generates, inside a worker.
import type { InferenceModel } from '../checkpoint/load.ts'
import { UserError } from '../core/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { createWebExecutor } from '../runtime/onnxruntime-web/executor.ts'
import { type OrtModuleFactory, startModule } from '../runtime/onnxruntime-web/module.ts'
import { createGenerator, type Generator, type GeneratorOptions } from '../text/generator.ts'
import { readModel } from './checkpoint.ts'
import { type DownloadOptions, download } from './download.ts'
import { LoadError } from './errors.ts'
import { manifestFile, parseManifest } from './manifest.ts'

/** What runs the model, and why that. */
export interface Backend {
  device: 'wasm'
  threads: number
  /** Why there are not more threads; undefined where nothing stands in the way. */
  why?: string
}

/** Where onnxruntime-web's files are, for pages that do not leave that to a bundler. */
export interface RuntimeFiles {
  /** Address of `ort-wasm-simd-threaded.mjs`. */
  script: string
  /** Address of `ort-wasm-simd-threaded.wasm`. Default: beside the script. */
  wasm?: string
}

export interface OpenOptions extends DownloadOptions, Pick<GeneratorOptions, 'mode' | 'blockSize'> {
  /** Threads of the processor. Default: its cores, at most 8, where the page is isolated from others; else 1. */
  threads?: number | undefined
  /** Default: what the bundler makes of the package onnxruntime-web. */
  runtime?: RuntimeFiles | undefined
}

/** The address of a folder that `unmask export --to web` wrote, or the files of a model folder. */
export type Source = string | readonly File[]

export interface Opened {
  loaded: InferenceModel
  generator: Generator
  backend: Backend
  /** Bytes that the runtime has taken from the browser. */
  memory(): Promise<number>
  dispose(): Promise<void>
}

export async function open(source: Source, options: OpenOptions = {}): Promise<Opened> {
  const { runtime, mode, blockSize, onProgress } = options
  checkSupport()
  // The runtime is fetched and compiled while the weights come.
  const backend = threadsOf(options.threads)
  const starting = start(runtime, backend.threads)
  starting.catch(() => undefined)
  const { name, files } = typeof source === 'string' ? await fromAddress(source, options) : await fromFiles(source)
  const loaded = await readModel(name, files)
  onProgress?.({ phase: 'start' })
  const executor: Executor = createWebExecutor(await starting, {
    threads: backend.threads,
    file: (location) => {
      const bytes = files.get(location)
      if (!bytes) throw new Error(`no file ${location}`)
      return bytes
    },
  })
  const generator = await createGenerator(executor, loaded, {
    ...(mode === undefined ? {} : { mode }),
    ...(blockSize === undefined ? {} : { blockSize }),
  })
  // The runtime has packed them.
  files.clear()
  return {
    ...{ loaded, generator, backend, memory: executor.memory },
    async dispose() {
      await generator.dispose()
      await executor.dispose()
    },
  }
}

async function fromAddress(
  url: string,
  options: OpenOptions,
): Promise<{ name: string; files: Map<string, Uint8Array> }> {
  const folder = url.endsWith('/') ? url : `${url}/`
  const { manifest, files } = await download(folder, options)
  return { name: manifest.name, files }
}

async function fromFiles(source: readonly File[]): Promise<{ name: string; files: Map<string, Uint8Array> }> {
  const files = new Map<string, Uint8Array>()
  for (const file of source)
    if (/\.(json|jinja|txt|safetensors)$/.test(file.name))
      files.set(file.name, new Uint8Array(await file.arrayBuffer()))
  const manifest = files.get(manifestFile)
  const folder = source[0]?.webkitRelativePath.split('/')[0]
  return {
    name: manifest ? parseManifest(new TextDecoder().decode(manifest), manifestFile).name : folder || 'model',
    files,
  }
}

/** Throws LoadError where WebAssembly lacks what the runtime is compiled for. */
function checkSupport(): void {
  // A function that returns a vector: SIMD.
  const simd = [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
  ]
  if (typeof WebAssembly === 'undefined' || !WebAssembly.validate(Uint8Array.from(simd)))
    throw new LoadError(
      'support',
      'This browser has no WebAssembly with SIMD, which models need here: take a newer one.',
    )
}

const MOST_THREADS = 8

function threadsOf(asked: number | undefined): Backend {
  if (asked !== undefined && (!Number.isSafeInteger(asked) || asked < 1))
    throw new UserError(`threads: expected a whole number of at least 1, not ${asked}`)
  if (!globalThis.crossOriginIsolated)
    return {
      ...{ device: 'wasm', threads: 1 },
      ...(asked === 1
        ? {}
        : { why: 'the page is not isolated from others: its server must send COOP and COEP headers' }),
    }
  return { device: 'wasm', threads: asked ?? Math.min(navigator.hardwareConcurrency, MOST_THREADS) }
}

async function start(runtime: RuntimeFiles | undefined, threads: number) {
  let factory: OrtModuleFactory
  try {
    const script: { default: OrtModuleFactory } = runtime
      ? await import(/* @vite-ignore */ /* webpackIgnore: true */ runtime.script)
      : // @ts-expect-error: it has no types
        await import('onnxruntime-web/ort-wasm-simd-threaded.mjs')
    factory = script.default
    return await startModule(factory, { threads, ...(runtime?.wasm === undefined ? {} : { wasm: runtime.wasm }) })
  } catch (error) {
    if (error instanceof UserError) throw error
    const why = error instanceof Error ? error.message : String(error)
    throw new LoadError('network', `The runtime (onnxruntime-web) could not be started: ${why}. Load again.`)
  }
}
