// Asks models in Chromium and on Node the same questions, and compares tokens, forwards and texts: all modes and strategies,
// sampling, constraints, gaps, corrections. `npm run check:browser -- [--prompts 100] [--out FILE] MODEL...`; models in float32.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { pull } from '../src/checkpoint/index.ts'
import { loadForInference } from '../src/checkpoint/load.ts'
import { modelDecoding } from '../src/decode/index.ts'
import { writeWebModel } from '../src/jobs/web-model.ts'
import { openModel } from '../src/text/open.ts'
import { askInPage, loadInPage, openPage } from '../test/browser/page.ts'
import { answerOf, type Kind, questions, ways } from '../test/browser/questions.ts'
import { bundle, runtimeFolder, startSite } from '../test/browser/site.ts'
import { launch } from '../web/chromium.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { prompts: { type: 'string', default: '100' }, out: { type: 'string' } },
})
const models = positionals.length > 0 ? positionals : ['tiny']
const count = Number(values.prompts)

/** Questions to a page at a time. */
const AT_A_TIME = 20

async function kindOf(source: string): Promise<Kind> {
  const { causalContext, modes } = modelDecoding(await loadForInference(source))
  return causalContext ? 'hybrid' : modes.includes('diffusion') ? 'diffusion' : 'ar'
}

interface Result {
  model: string
  kind: Kind
  /** How many questions, and how many of them were answered otherwise. */
  asked: number
  different: number
  ways: string[]
  examples: { question: unknown; node: unknown; browser: unknown }[]
}

async function compare(
  source: string,
  folder: string,
  ask: (name: string, asked: ReturnType<typeof questions>) => Promise<unknown[]>,
): Promise<Result> {
  const kind = await kindOf(source)
  const name = basename(source)
  await mkdir(join(folder, name))
  await writeWebModel((await pull(source)).path, join(folder, name), name)
  const asked = questions(kind, count)
  const node = await openModel(source)
  const result: Result = {
    model: name,
    kind,
    asked: asked.length,
    different: 0,
    ways: Object.keys(ways(kind)),
    examples: [],
  }
  const browser = await ask(name, asked)
  for (const [i, question] of asked.entries()) {
    const expected = await answerOf(node, question)
    if (JSON.stringify(expected) === JSON.stringify(browser[i])) continue
    result.different++
    if (result.examples.length < 5) result.examples.push({ question, node: expected, browser: browser[i] })
  }
  await node.dispose()
  return result
}

const folder = await mkdtemp(join(tmpdir(), 'unmask-check-browser-'))
const lib = await bundle()
const site = await startSite({ folders: { '/lib/': lib.folder, '/runtime/': runtimeFolder, '/models/': `${folder}/` } })
const browser = await launch()
const results: Result[] = []
try {
  for (const source of models) {
    const result = await compare(source, folder, async (name, asked) => {
      const { page, context, problems } = await openPage(browser, site)
      await loadInPage(page, `/models/${name}/`)
      const answers: unknown[] = []
      for (let i = 0; i < asked.length; i += AT_A_TIME) {
        answers.push(...(await askInPage(page, asked.slice(i, i + AT_A_TIME))))
        process.stderr.write(`\r${name}: ${answers.length} of ${asked.length}   `)
      }
      process.stderr.write('\n')
      if (problems.length > 0) throw new Error(problems.join('\n'))
      await context.close()
      return answers
    })
    results.push(result)
    console.log(
      `${result.model} (${result.kind}): ${result.asked - result.different} of ${result.asked} answers are the same`,
    )
    for (const example of result.examples) console.log(JSON.stringify(example))
  }
  if (values.out)
    await writeFile(
      values.out,
      `${JSON.stringify({ prompts: count, chromium: browser.version(), results }, null, 2)}\n`,
    )
  if (results.some(({ different }) => different > 0)) process.exitCode = 1
} finally {
  await browser.close()
  await site.close()
  await lib.remove()
  await rm(folder, { recursive: true })
}
