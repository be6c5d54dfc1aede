// A page of the test site in which `unmask/web` is loaded, and questions to a model in it.
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { until } from '../serve/models.ts'
import { answerOf, type WebQuestion } from './questions.ts'
import type { Site } from './site.ts'

export interface OpenPage {
  page: Page
  context: BrowserContext
  /** Errors of scripts, and what the policy refused. */
  problems: string[]
}

/** Opens the site in a context of its own, whose storage is empty, or in one that is given. */
export async function openPage(
  browser: Browser,
  { url }: Pick<Site, 'url'>,
  context?: BrowserContext,
): Promise<OpenPage> {
  const own = context ?? (await browser.newContext())
  own.setDefaultTimeout(60_000)
  const page = await own.newPage()
  const problems: string[] = []
  page.on('pageerror', (error) => problems.push(error.message))
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text())
  })
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith('blob:')) problems.push(`asked ${request.url()}`)
  })
  await page.goto(url)
  // Not waitForFunction, which the policy of the page forbids.
  await until(() => page.evaluate('globalThis.unmask !== undefined'))
  return { page, context: own, problems }
}

export interface Loaded {
  backend: { device: string; threads: number; why?: string }
  /** Phases that were reported, each once. */
  phases: string[]
  seconds: number
}

/** Loads a model into `globalThis.model` of the page. Rejects as `load` does, with the reason before the message. */
export async function loadInPage(page: Page, folder: string, options: object = {}): Promise<Loaded> {
  const result = await page.evaluate(
    `(async () => {
      const phases = (globalThis.phases = new Set())
      const since = performance.now()
      try {
        globalThis.model = await unmask.load(${JSON.stringify(folder)}, {
          runtime, ...${JSON.stringify(options)}, onProgress: ({ phase }) => phases.add(phase),
        })
      } catch (error) {
        return { error: (error.reason ?? error.name) + ': ' + error.message }
      }
      return { backend: model.backend, phases: [...phases], seconds: (performance.now() - since) / 1000 }
    })()`,
  )
  const { error, ...loaded } = result as Loaded & { error?: string }
  if (error !== undefined) throw new Error(error)
  return loaded
}

/** The answers of the model in the page, in order. */
export const askInPage = (page: Page, questions: readonly WebQuestion[]): Promise<unknown[]> =>
  page.evaluate(
    `(async () => {
      const answerOf = ${answerOf.toString()}
      const answers = []
      for (const question of ${JSON.stringify(questions)}) answers.push(await answerOf(model, question))
      return answers
    })()`,
  )
