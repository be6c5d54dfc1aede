// The folder that `unmask export --to web` writes, served by a server that sends files and nothing else, in a real Chromium.
import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exportWeb } from '../../src/jobs/export-web.ts'
import { chromiumPath, launch } from '../../web/chromium.ts'
import { modelFolder, type TestModel } from '../serve/models.ts'
import { type Site, startSite } from './site.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

describe.skipIf(!chromiumPath)('in Chromium', () => {
  let browser: Browser
  let model: TestModel
  let folder: string
  let site: Site

  beforeAll(async () => {
    execFileSync('npm', ['run', '--silent', 'build:web'], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
    model = await modelFolder({ mask_token_id: 259, block_size: 8, same_token_labels: false })
    folder = join(await mkdtemp(join(tmpdir(), 'unmask-export-')), 'page')
    await exportWeb({ model: model.path, out: folder })
    site = await startSite({ folders: { '/': folder }, isolated: false })
    browser = await launch()
  })
  afterAll(async () => {
    await browser?.close()
    await site?.close()
    await model?.remove()
    await rm(join(folder, '..'), { recursive: true })
  })

  /** Opens the page and fails on errors, refusals of the policy, and requests to anywhere else. */
  async function withPage(
    act: (page: Page, context: BrowserContext) => Promise<void>,
    complaints: RegExp[] = [],
  ): Promise<void> {
    const context = await browser.newContext({ viewport: { width: 390, height: 800 } })
    context.setDefaultTimeout(60_000)
    const page = await context.newPage()
    const problems: string[] = []
    const note = (text: string) => {
      if (!complaints.some((known) => known.test(text))) problems.push(text)
    }
    page.on('pageerror', (error) => note(error.message))
    page.on('console', (message) => message.type() === 'error' && note(message.text()))
    context.on('request', (request) => {
      if (!request.url().startsWith(site.url)) note(`asked ${request.url()}`)
    })
    try {
      await page.goto(site.url)
      await act(page, context)
      expect(problems).toEqual([])
    } finally {
      await context.close()
    }
  }
  const ready = (page: Page) => page.getByRole('tab', { name: 'Chat' }).waitFor()
  const finished = (page: Page, mode: string) =>
    page.locator(`#mode-${mode} .answer[aria-busy=false]:has(.numbers li)`).last()

  test('it is small, and a browser fetches it once', async () => {
    const sizes = await Promise.all(
      (await readdir(folder)).map(async (file) => [file, (await stat(join(folder, file))).size] as const),
    )
    const page = sizes.filter(([file]) => !file.startsWith('ort-')).reduce((sum, [, size]) => sum + size, 0)
    expect(page).toBeLessThan(6e6)
    expect(Object.fromEntries(sizes)['worker.js']).toBeLessThan(600_000)
  })

  test('blocks form in view, gaps are filled, a text is corrected', async () => {
    await withPage(async (page) => {
      await ready(page)
      expect(await page.evaluate('crossOriginIsolated')).toBe(true)
      expect(await page.locator('#about').innerText()).toMatch(/in this browser, (one thread|\d+ threads)/)
      // Nothing is wider than a phone.
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390)
      await page.getByRole('button', { name: 'Settings and session' }).click()
      await page.getByLabel('Longest answer', { exact: true }).fill('16')
      await page.getByRole('button', { name: 'Close' }).click()
      await page.locator('#chat-prompt').fill('The people of the ')
      await page.locator('#chat-prompt').press('Enter')
      await finished(page, 'chat').waitFor()
      expect(await finished(page, 'chat').locator('.tokens [role=option]').count()).toBeGreaterThan(4)
      expect(await finished(page, 'chat').locator('.numbers').innerText()).toMatch(/\d+ tokens?\s+\d+ forwards?/)

      await page.getByRole('tab', { name: 'Infill' }).click()
      await page.getByRole('button', { name: 'Example' }).click()
      await page.locator('.holes li').waitFor()
      await page.getByRole('button', { name: 'Fill', exact: true }).click()
      await finished(page, 'infill').waitFor()
      expect(await finished(page, 'infill').locator('.token.given').count()).toBeGreaterThan(20)

      await page.getByRole('tab', { name: 'Repair' }).click()
      await page.locator('#repair-text').fill('The people of teh United')
      await page.getByLabel('Replace where surer than').fill('0.3')
      await page.getByRole('button', { name: 'Correct', exact: true }).click()
      await page.locator('.changes h3').waitFor()
    })
  })

  test('without a network it runs all the same', async () => {
    await withPage(
      async (page, context) => {
        await ready(page)
        // The browser fetches some of the first visit's files, the manifest for one, when the page has long begun.
        await page.waitForLoadState('networkidle')
        await context.setOffline(true)
        site.asked.length = 0
        await page.reload()
        await ready(page)
        await page.locator('#chat-prompt').fill('The people of the ')
        await page.locator('#chat-prompt').press('Enter')
        await finished(page, 'chat').waitFor()
        // The browser itself looks for a new service worker, past what simulates the missing network.
        expect(site.asked.filter((path) => path !== '/sw.js')).toEqual([])
      },
      [/ERR_INTERNET_DISCONNECTED/],
    )
  })

  test('a download that stops says so on the page, and a button goes on', async () => {
    site.intercept = (path, response) => path === '/model.safetensors' && Boolean(response.destroy())
    await withPage(
      async (page) => {
        const again = page.getByRole('button', { name: 'Try again' })
        await again.waitFor()
        expect(await page.locator('#status').innerText()).toContain('load again to go on')
        site.intercept = () => false
        await again.click()
        await ready(page)
      },
      [/ERR_|Failed to load/],
    )
  })
})
