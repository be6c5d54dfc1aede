// Time and memory of models in Chromium, as JSON lines: see USAGE. A report of `npm run measure`.
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Browser } from 'playwright-core'
import { median, peakMemory, report, reportRun } from '../bench/measure.ts'
import { pull } from '../src/checkpoint/index.ts'
import { exportWeb } from '../src/jobs/export-web.ts'
import { writeWebModel } from '../src/jobs/web-model.ts'
import { loadInPage, openPage } from '../test/browser/page.ts'
import { bundle, runtimeFolder, startSite } from '../test/browser/site.ts'
import { launch } from '../web/chromium.ts'

const USAGE = `usage: npm run measure:browser -- [flags] MODEL...
       npm run measure:browser -- --page [flags] MODEL...

Each model in a Chromium of its own, served by a local server: the size of its files, the memory that the runtime has taken in the
end (it gives none back) and the peak of the page's process, seconds to load it and from a prompt to the first token, and tokens
per second behind that. Answers go to stderr.

With --page the page that "unmask export --to web" writes, opened by a Chromium that has nothing of it: what it transfers, and
seconds from opening it until the first token of an answer is on the screen.

  --threads N   threads of the runtime (default: the cores of the machine)
  --tokens N    of an answer (default 32)
  --mode NAME   mode of decoding (default: the model's)
  --prompt TEXT (default: how a sentence begins)
  --rounds N    runs, each in a new Chromium (default 3); values are medians
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: String(availableParallelism()) },
    tokens: { type: 'string', default: '32' },
    mode: { type: 'string' },
    prompt: { type: 'string', default: 'The people of the United States' },
    rounds: { type: 'string', default: '3' },
    page: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

/** A value for each unit. */
type Measured = Record<string, number>

const MB = 1e6

/** Peak of the memory of the largest process that shows a page, in bytes; NaN where the system does not say. */
async function peakOfPage(browser: Browser): Promise<number> {
  const session = await browser.newBrowserCDPSession()
  const { processInfo } = await session.send('SystemInfo.getProcessInfo')
  const pids = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id)
  return Math.max(...pids.map((pid) => peakMemory(pid) ?? Number.NaN))
}

async function measureModel(browser: Browser, url: string, bytes: number): Promise<Measured> {
  const { page } = await openPage(browser, { url })
  const { seconds } = await loadInPage(page, '/models/model/', { threads: Number(values.threads) })
  const settings = { maxNewTokens: Number(values.tokens), ...(values.mode ? { mode: values.mode } : {}) }
  const run = (await page.evaluate(`(async () => {
    const since = performance.now()
    let first
    // As a chat where the model has a template for it.
    const text = ${JSON.stringify(values.prompt)}
    const prompt = model.promptStyle.template === 'chat' ? [{ role: 'user', content: text }] : text
    const writing = unmask.generate(model, prompt, ${JSON.stringify(settings)})
    for (;;) {
      const { done, value } = await writing.next()
      if (done) return { ...value, first, memory: await model.memory() }
      if (first === undefined && value.count > 0) first = (performance.now() - since) / 1000
    }
  })()`)) as { text: string; tokens: number; first: number; memory: number; seconds: number; prefillSeconds: number }
  process.stderr.write(`${run.text}\n`)
  return {
    'MB of files': bytes / MB,
    'MB of runtime memory': run.memory / MB,
    'MB of the process': (await peakOfPage(browser)) / MB,
    's to load': seconds,
    's to first token': run.first,
    'tokens/s': (run.tokens - 1) / (run.seconds - run.prefillSeconds),
  }
}

async function measurePage(browser: Browser, url: string, sizes: Measured): Promise<Measured> {
  const page = await browser.newPage()
  page.setDefaultTimeout(300_000)
  const since = performance.now()
  const seconds = () => (performance.now() - since) / 1000
  await page.goto(url)
  await page.locator('#chat-prompt').waitFor()
  const ready = seconds()
  await page.locator('#chat-prompt').fill(values.prompt)
  await page.locator('#chat-prompt').press('Enter')
  await page.locator('.answer .token').first().waitFor()
  return { ...sizes, 's until it takes a prompt': ready, 's until the first token': seconds() }
}

/** Runs in a new browser each, and the median of every value. */
async function measure(name: string, run: (browser: Browser) => Promise<Measured>): Promise<void> {
  const rounds: Measured[] = []
  for (let round = 0; round < Number(values.rounds); round++) {
    const browser = await launch()
    try {
      rounds.push(await run(browser))
    } finally {
      await browser.close()
    }
  }
  for (const unit of Object.keys(rounds[0]!)) {
    const value = median(rounds.map((measured) => measured[unit]!))
    report({ bench: values.page ? 'browser page' : 'browser', case: name, value, unit })
  }
}

async function measureModels(): Promise<void> {
  const lib = await bundle()
  try {
    for (const source of positionals) {
      const folder = await mkdtemp(join(tmpdir(), 'unmask-measure-browser-'))
      await mkdir(join(folder, 'model'))
      const bytes = await writeWebModel((await pull(source)).path, join(folder, 'model'), source)
      const folders = { '/lib/': lib.folder, '/runtime/': runtimeFolder, '/models/': `${folder}/` }
      const site = await startSite({ folders })
      await measure(basename(source), (browser) => measureModel(browser, site.url, bytes))
      await site.close()
      await rm(folder, { recursive: true })
    }
  } finally {
    await lib.remove()
  }
}

async function measurePages(): Promise<void> {
  for (const source of positionals) {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-measure-page-'))
    const out = join(folder, 'page')
    const { bytes } = await exportWeb({ model: source, out })
    // As any host: without the headers that threads need.
    const site = await startSite({ folders: { '/': out }, isolated: false })
    const sizes = { 'MB of page and model': (bytes.page + bytes.model) / MB, 'MB of runtime': bytes.runtime / MB }
    await measure(basename(source), (browser) => measurePage(browser, site.url, sizes))
    await site.close()
    await rm(folder, { recursive: true })
  }
}

if (values.help || positionals.length === 0) {
  process.stdout.write(USAGE)
  if (!values.help) process.exitCode = 2
} else {
  reportRun(`npm run measure:browser -- ${process.argv.slice(2).join(' ')}`, Number(values.threads))
  await (values.page ? measurePages() : measureModels())
}
