// Versions that a result depends on, for reports and checkpoints.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

let known: string | undefined

/** The version in package.json, which stands one folder above this file in the sources and in the build. */
export function packageVersion(): string {
  known ??= readVersion(new URL('../../package.json', import.meta.url))
  return known
}

/** unmask, Node and ONNX Runtime. */
export function versions(): Record<string, string> {
  const runtime = createRequire(import.meta.url).resolve('onnxruntime-node/package.json')
  return { unmask: packageVersion(), node: process.version, 'onnxruntime-node': readVersion(runtime) }
}

function readVersion(file: string | URL): string {
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}
