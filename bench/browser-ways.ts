// Ways of `bench jobs` in a real Chromium: models as `unmask export --to web` writes them, and transformers.js beside them, each in
// a worker of the same page.
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Page } from 'playwright-core'
import { exists } from '../src/checkpoint/file.ts'
import { pull } from '../src/checkpoint/index.ts'
import { type InferenceModel, loadForInference } from '../src/checkpoint/load.ts'
import { UserError } from '../src/core/types.ts'
import { writeWebModel } from '../src/jobs/web-model.ts'
import type { WriteSettings } from '../src/text/model.ts'
import { textOf } from '../src/tokenizer/stream.ts'
import { openPage } from '../test/browser/page.ts'
import { bundle, runtimeFolder, startSite } from '../test/browser/site.ts'
import { launch } from '../web/chromium.ts'
import { parseNamed, settingsOf, type Way, type WayOptions, type Ways, type Written } from './ways.ts'

/** transformers.js and its onnxruntime-web, by the paths under which the page finds them. Throws UserError where they are not. */
async function peerFolders(): Promise<Record<string, string>> {
  const folder = process.env.TRANSFORMERS_JS
  const modules = join(resolve(folder ?? ''), 'node_modules')
  const library = join(modules, '@huggingface', 'transformers', 'dist')
  if (!folder || !(await exists(library)))
    throw new UserError('--peer: TRANSFORMERS_JS must name a folder with @huggingface/transformers in it')
  return {
    '/transformers/': `${library}/`,
    '/transformers-runtime/': `${join(modules, 'onnxruntime-web', 'dist')}/`,
    '/peers/': fileURLToPath(new URL('./peers/', import.meta.url)),
  }
}

/** Loads the models and peers into the page. Throws UserError where there is no way, or nothing to write. */
export async function openBrowserWays(options: WayOptions): Promise<Ways> {
  const { data, way, peer } = options
  if (!data || way.length === 0)
    throw new UserError('name the rows or prompts (--data) and at least one way to continue them (--way)')
  const models = [...new Set(way.map((text) => parseNamed(text).model))]
  const peerModels = [...new Set(peer.map((text) => resolve(parseNamed(text).model)))]
  const peerFiles = peerModels.length > 0 ? await peerFolders() : {}
  const folder = await mkdtemp(join(tmpdir(), 'unmask-browser-ways-'))
  const lib = await bundle()
  const site = await startSite({
    folders: {
      ...{ '/lib/': lib.folder, '/runtime/': runtimeFolder, '/models/': `${folder}/` },
      ...peerFiles,
      ...Object.fromEntries(peerModels.map((model, i) => [`/peer-models/${i}/`, `${model}/`])),
    },
  })
  const browser = await launch()
  const close = async () => {
    await browser.close()
    await site.close()
    await lib.remove()
    await rm(folder, { recursive: true })
  }
  try {
    const { page } = await openPage(browser, site)
    const threads = Number(options.threads)
    for (const [i, model] of models.entries()) {
      await mkdir(join(folder, String(i)))
      await writeWebModel((await pull(model)).path, join(folder, String(i)), model)
      await page.evaluate(`(async () => {
        globalThis.models ??= []
        models[${i}] = await unmask.load('/models/${i}/', { runtime, threads: ${threads} })
      })()`)
    }
    for (const [i, model] of peerModels.entries()) await loadPeer(page, i, model, threads)
    const first = await loadForInference(models[0]!)
    const most = Number(options['max-new-tokens'])
    const ways = way.map((text) => ownWay(page, text, { models, most, first }))
    const peers = peer.map((text) => peerWay(page, text, { models: peerModels, most, first }))
    return { ways: [...ways, ...peers], first, files: data.split(','), close }
  } catch (error) {
    await close()
    throw error
  }
}

/** What transformers.js calls the formats of files. */
const DTYPES: Record<string, string> = { fp32: 'model.onnx', q4: 'model_q4.onnx', q8: 'model_quantized.onnx' }

async function loadPeer(page: Page, index: number, folder: string, threads: number): Promise<void> {
  const files = await readdir(join(folder, 'onnx'))
  const dtype = Object.keys(DTYPES).find((type) => files.includes(DTYPES[type]!))
  if (!dtype) throw new UserError(`${folder}: there is no model that scripts/to_transformersjs.py wrote`)
  const question = {
    ...{ kind: 'load', model: String(index), dtype, threads },
    ...{ library: '/transformers/transformers.min.js', runtime: '/transformers-runtime/' },
  }
  await page.evaluate(`(async () => {
    globalThis.peers ??= []
    globalThis.askPeer ??= (worker, question) => new Promise((resolve, reject) => {
      worker.onerror = ({ message }) => reject(new Error(message || 'the worker of the peer could not start'))
      worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data))
      worker.postMessage(question)
    })
    peers[${index}] = new Worker('/peers/transformersjs.js', { type: 'module' })
    return askPeer(peers[${index}], ${JSON.stringify(question)})
  })()`)
}

interface Writing {
  models: readonly string[]
  most: number
  first: InferenceModel
}

/** Prompts go to the page as text without special tokens, the same for all: models have their own tokenizers there. */
const textsOf = ({ tokenizer }: InferenceModel, prompts: readonly (readonly number[])[]): string[] =>
  prompts.map((ids) => textOf(tokenizer, ids, { after: [] }))

function ownWay(page: Page, text: string, { models, most, first }: Writing): Way {
  const { name, model, query } = parseNamed(text)
  const settings: WriteSettings = { maxNewTokens: most, template: 'none', separator: '', ...settingsOf(query) }
  const write: Way['write'] = async (prompts) =>
    (await page.evaluate(`(async () => {
      const one = async (prompt) => {
        const writing = models[${models.indexOf(model)}].generate(prompt, ${JSON.stringify(settings)})
        for (;;) {
          const { done, value } = await writing.next()
          if (!done) continue
          const { ids, text, tokens, seconds, forwards } = value
          return { ids, text, tokens, seconds, forwards }
        }
      }
      return Promise.all(${JSON.stringify(textsOf(first, prompts))}.map(one))
    })()`)) as Written[]
  return { name, model, isPeer: false, write }
}

/** The peer writes one text at a time. */
function peerWay(page: Page, text: string, { models, most, first }: Writing): Way {
  const { name, model } = parseNamed(text)
  const worker = `peers[${models.indexOf(resolve(model))}]`
  const write: Way['write'] = async (prompts) => {
    const written: Written[] = []
    for (const [i, prompt] of textsOf(first, prompts).entries()) {
      const question = { kind: 'write', text: prompt, most }
      const { ids, seconds } = (await page.evaluate(`askPeer(${worker}, ${JSON.stringify(question)})`)) as {
        ids: number[]
        seconds: number
      }
      const text = textOf(first.tokenizer, ids, { after: [...prompts[i]!] })
      written.push({ ids, text, tokens: ids.length, seconds, forwards: Number.NaN })
    }
    return written
  }
  return { name, model, isPeer: true, write }
}
