// unmask export --to web: a folder that any file server can serve to browsers: the model, and a page that runs it.
import { createHash } from 'node:crypto'
import { copyFile, readdir, readFile, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { exists, writeTextAtomically } from '../checkpoint/file.ts'
import { claimOutput, makeCheckpointFolder, pull } from '../checkpoint/index.ts'
import { modelName, packaged } from '../checkpoint/names.ts'
import { UserError } from '../core/types.ts'
import type { ExportModelOptions } from './export.ts'
import { writeWebModel } from './web-model.ts'

export interface ExportWebOptions extends ExportModelOptions {
  /** What the page calls the model, in 1 to 200 characters. Default: see `modelName`. */
  name?: string | undefined
}

export interface ExportWebResult {
  out: string
  /** Bytes of the model's files, of the page's, and of the runtime's, which a browser fetches once. */
  bytes: { model: number; page: number; runtime: number }
}

/** Of onnxruntime-web: what runs the model. */
const RUNTIME = ['ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm']

/** The service worker, which is written with the names of the files that it keeps. */
const SERVICE_WORKER = 'sw.js'

/**
 * Writes `out`: the model in small shards with a manifest of their hashes, as `load` of unmask/web takes it, and a page that loads
 * it, with the runtime. The folder appears when it is whole. Throws UserError where the model cannot be read or `out` may not be
 * written.
 */
export async function exportWeb(options: ExportWebOptions): Promise<ExportWebResult> {
  const { model: source, out, force, signal, fetch = pull, onPhase = () => undefined } = options
  await claimOutput(out, { inputs: [source], force })
  const page = packaged('dist', 'page')
  if (!(await exists(page))) throw new UserError('the page is not built: npm run build')
  const { path } = await fetch(source, { signal })
  await claimOutput(out, { inputs: [path], force })
  const name = options.name ?? modelName(source)
  if (name.length === 0 || name.length > 200) throw new UserError('name: expected 1 to 200 characters')
  let bytes: ExportWebResult['bytes'] | undefined
  await makeCheckpointFolder(out, async (folder) => {
    const model = await writeWebModel(path, folder, name, () => onPhase('writing the weights'))
    onPhase('writing the page')
    bytes = { model, ...(await writePage(page, folder, name)) }
  })
  return { out, bytes: bytes! }
}

/** Writes the page that is built in `built`, and the runtime; returns their bytes. */
async function writePage(built: string, folder: string, name: string): Promise<{ page: number; runtime: number }> {
  const runtime = dirname(createRequire(import.meta.url).resolve('onnxruntime-web/ort-wasm-simd-threaded.mjs'))
  const own = (await readdir(built)).filter((file) => file !== SERVICE_WORKER && !file.endsWith('.map'))
  const sources = new Map([
    ...own.map((file) => [file, join(built, file)] as const),
    ...RUNTIME.map((file) => [file, join(runtime, file)] as const),
  ])
  const hash = createHash('sha256')
  for (const [file, source] of sources) {
    await copyFile(source, join(folder, file))
    hash.update(file).update(await readFile(source))
  }
  await writeTextAtomically(join(folder, 'app.webmanifest'), webManifest(name))
  const files = ['./', ...sources.keys(), 'app.webmanifest']
  const version = hash.update(name).digest('hex').slice(0, 16)
  const code = await readFile(join(built, SERVICE_WORKER), 'utf8')
  const head = `const VERSION = ${JSON.stringify(version)}\nconst FILES = ${JSON.stringify(files)}\n`
  await writeTextAtomically(join(folder, SERVICE_WORKER), head + code)
  const size = async (file: string) => (await stat(join(folder, file))).size
  const sizes = await Promise.all([...own, SERVICE_WORKER, 'app.webmanifest'].map(size))
  const runtimeSizes = await Promise.all(RUNTIME.map(size))
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)
  return { page: sum(sizes), runtime: sum(runtimeSizes) }
}

/** What a browser needs to know to install the page. */
const webManifest = (name: string): string =>
  `${JSON.stringify(
    {
      ...{ name: `unmask: ${name}`, short_name: name, start_url: './', scope: './', display: 'standalone' },
      ...{ background_color: '#fbfbfa', theme_color: '#fbfbfa' },
      icons: [{ src: 'icon.svg', sizes: 'any', type: 'image/svg+xml' }],
    },
    null,
    2,
  )}\n`
