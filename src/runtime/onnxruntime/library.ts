// Finds and loads ONNX Runtime's library, which the package onnxruntime-node brings.
import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import koffi from 'koffi'

// A call runs on koffi's own stack: as much as a thread has.
koffi.config({ sync_stack_size: 8 * 2 ** 20 })

// The library reports each session to its maker, from 1.30 on also on Linux, unless that is switched off before it is loaded.
process.env.ORT_DISABLE_TELEMETRY ??= '1'

/** Exported because koffi unloads a library that nothing refers to; pointers to its functions do not count. */
export const library = koffi.load(libraryPath())

function libraryPath(): string {
  const root = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'))
  const [napi] = readdirSync(join(root, 'bin')).filter((name) => name.startsWith('napi-'))
  return join(root, 'bin', napi, process.platform, process.arch, fileName())
}

function fileName(): string {
  switch (process.platform) {
    case 'win32':
      return 'onnxruntime.dll'
    case 'darwin':
      return 'libonnxruntime.1.dylib'
    default:
      return 'libonnxruntime.so.1'
  }
}
