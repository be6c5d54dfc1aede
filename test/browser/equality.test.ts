// The browser's model beside Node's, in a real Chromium: the same questions, the same tokens in the same number of forwards. A few
// prompts here; `npm run check:browser` asks a hundred.
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadForInference } from '../../src/checkpoint/load.ts'
import { exportOnnx } from '../../src/graph/program.ts'
import { quantize } from '../../src/jobs/quantize.ts'
import { writeWebModel } from '../../src/jobs/web-model.ts'
import type { Executor } from '../../src/runtime/executor.ts'
import { createExecutor } from '../../src/runtime/onnxruntime/executor.ts'
import { createGenerator } from '../../src/text/generator.ts'
import { modelOf, type OpenModel } from '../../src/text/model.ts'
import { chromiumPath, launch } from '../../web/chromium.ts'
import { diffusionFolder, modelFolder, tiny } from '../serve/models.ts'
import { askInPage, loadInPage, openPage } from './page.ts'
import { answerOf, type Kind, questions } from './questions.ts'
import { bundle, runtimeFolder, type Site, startSite } from './site.ts'

/**
 * A model on Node. Quantised ones run the browser's program there: Node's own rounds the inputs of products to 8 bits, which
 * WebAssembly has no kernels for, so its texts can be others.
 */
async function onNode(path: string, quantized: boolean): Promise<OpenModel> {
  const loaded = await loadForInference(path)
  const executor = createExecutor({ threads: 1 })
  const asInBrowsers: Executor = {
    ...executor,
    load(program, { constants, files, rewrite } = {}) {
      const external = files && { location: '', tensors: files.tensors }
      const target = 'onnxruntime-web'
      const lowered = exportOnnx(program, { target, loaded: constants?.names, external, rewrite })
      const weights = constants?.values(lowered.loaded)
      return executor.loadModel(lowered.model, { weights, externalFolder: files?.folder })
    },
  }
  const generator = await createGenerator(quantized ? asInBrowsers : executor, loaded)
  return modelOf(loaded, generator, executor.dispose)
}

if (!chromiumPath) console.warn('no Chromium here: unmask/web is not tested in one (set CHROMIUM_PATH)')

describe.skipIf(!chromiumPath)('in Chromium', () => {
  let browser: Browser
  let folder: string
  let lib: Awaited<ReturnType<typeof bundle>>
  let site: Site
  const models = new Map<string, { path: string; remove(): Promise<void> }>()

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'unmask-browser-'))
    models.set('ar', { path: tiny, remove: async () => {} })
    models.set('diffusion', await diffusionFolder())
    models.set('hybrid', await modelFolder({ mask_token_id: 259, block_size: 8, causal_context: true }))
    const quantized = join(folder, '4-bits')
    await quantize({ model: tiny, out: quantized, bits: 4, method: 'rtn', offsets: true })
    models.set('4 bits', { path: quantized, remove: async () => {} })
    const folders: Record<string, string> = {}
    for (const [name, { path }] of models) {
      const written = join(folder, `web-${name}`)
      await mkdir(written)
      await writeWebModel(path, written, name)
      folders[`/${name}/`] = written
    }
    lib = await bundle()
    site = await startSite({ folders: { '/lib/': lib.folder, '/runtime/': runtimeFolder, ...folders } })
    browser = await launch()
  })
  afterAll(async () => {
    await browser?.close()
    await site?.close()
    await lib?.remove()
    for (const model of models.values()) await model.remove()
    await rm(folder, { recursive: true })
  })

  test.each(['ar', 'diffusion', 'hybrid', '4 bits'])('%s: the same as on Node', async (name) => {
    const kind: Kind = name === 'diffusion' || name === 'hybrid' ? name : 'ar'
    const asked = questions(kind, 1, 12)
    const node = await onNode(models.get(name)!.path, name.endsWith('bits'))
    const expected: unknown[] = []
    for (const question of asked) expected.push(await answerOf(node, question))
    await node.dispose()
    const { page, context, problems } = await openPage(browser, site)
    const { backend } = await loadInPage(page, `/${encodeURI(name)}/`)
    expect(backend.device).toBe('wasm')
    const answers = await askInPage(page, asked)
    for (const [i, question] of asked.entries()) expect(answers[i], JSON.stringify(question)).toEqual(expected[i])
    expect(problems).toEqual([])
    await context.close()
  })
})
