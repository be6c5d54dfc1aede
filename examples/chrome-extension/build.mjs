// node build.mjs MODEL_FOLDER OUT: writes the extension, to be loaded unpacked. MODEL_FOLDER is what `unmask export --to web` wrote.
// Needs the packages unmask and esbuild.
import { cp, mkdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const [model, out] = process.argv.slice(2)
const here = dirname(fileURLToPath(import.meta.url))
const RUNTIME = ['ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm']

await mkdir(join(out, 'model'), { recursive: true })
for (const file of ['manifest.json', 'background.js', 'content.js', 'offscreen.html'])
  await cp(join(here, file), join(out, file))
// The folder holds a page too, of which only the runtime is needed.
for (const file of RUNTIME) await cp(join(model, file), join(out, file))
const { files } = JSON.parse(await readFile(join(model, 'unmask.json'), 'utf8'))
for (const { path } of [...files, { path: 'unmask.json' }]) await cp(join(model, path), join(out, 'model', path))
await build({
  entryPoints: {
    offscreen: join(here, 'offscreen.js'),
    worker: fileURLToPath(import.meta.resolve('unmask/web/worker')),
  },
  ...{ outdir: out, bundle: true, minify: true, format: 'esm', target: 'es2022', external: ['onnxruntime-web/*'] },
})
