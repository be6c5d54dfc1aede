// Time and memory of a model in Chromium: `npm run measure:browser -- [--threads N] [--tokens 64] [--mode ar] [--out FILE] MODEL
// [PROMPT]`. The model is written as `unmask export --to web` writes it, and served by a local server.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { pull } from '../src/checkpoint/index.ts'
import { writeWebModel } from '../src/jobs/web-model.ts'
import { loadInPage, openPage } from '../test/browser/page.ts'
import { bundle, runtimeFolder, startSite } from '../test/browser/site.ts'
import { launch } from '../web/chromium.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string' },
    tokens: { type: 'string', default: '64' },
    mode: { type: 'string' },
    out: { type: 'string' },
  },
})
const [source = 'tiny', prompt = 'Explain in two sentences what a diffusion language model is.'] = positionals

const folder = await mkdtemp(join(tmpdir(), 'unmask-measure-browser-'))
const name = basename(source)
await mkdir(join(folder, name))
const bytes = await writeWebModel((await pull(source)).path, join(folder, name), name)
const lib = await bundle()
const site = await startSite({ folders: { '/lib/': lib.folder, '/runtime/': runtimeFolder, '/models/': `${folder}/` } })
const browser = await launch()
try {
  const { page } = await openPage(browser, site)
  const options = values.threads ? { threads: Number(values.threads) } : {}
  const { backend, seconds } = await loadInPage(page, `/models/${name}/`, options)
  const settings = { maxNewTokens: Number(values.tokens), ...(values.mode ? { mode: values.mode } : {}) }
  const run = (await page.evaluate(`(async () => {
    const since = performance.now()
    let first
    // As a chat where the model has a template for it.
    const prompt = model.promptStyle.template === 'chat' ? [{ role: 'user', content: ${JSON.stringify(prompt)} }] : ${JSON.stringify(prompt)}
    const writing = unmask.generate(model, prompt, ${JSON.stringify(settings)})
    for (;;) {
      const { done, value } = await writing.next()
      if (done) return { ...value, first, memory: await model.memory() }
      if (first === undefined && value.count > 0) first = (performance.now() - since) / 1000
    }
  })()`)) as {
    text: string
    tokens: number
    forwards: number
    tps: number
    first: number
    memory: number
    seconds: number
    prefillSeconds: number
  }
  const result = {
    ...{ model: name, prompt, text: run.text, chromium: browser.version(), cpu: cpus()[0]!.model, backend },
    /** Bytes of the model's files, and of WebAssembly's memory with weights and caches. */
    bytes,
    memory: run.memory,
    /** From asking for the model to its being ready, without a cache; from the prompt to the first token. */
    loadSeconds: seconds,
    firstTokenSeconds: run.first,
    tokens: run.tokens,
    forwards: run.forwards,
    /** After the first token. */
    tokensPerSecond: (run.tokens - 1) / (run.seconds - run.prefillSeconds),
  }
  console.log(JSON.stringify(result, null, 2))
  if (values.out) await writeFile(values.out, `${JSON.stringify(result, null, 2)}\n`)
} finally {
  await browser.close()
  await site.close()
  await lib.remove()
  await rm(folder, { recursive: true })
}
