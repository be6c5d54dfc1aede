// The playground in a real Chromium, against a real server. With SCREENSHOTS=1 it also makes the pictures of
// docs/playground.md; PLAYGROUND_MODEL names the converted model that is shown in them.
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { strategyNames } from '../src/decode/index.ts'
import { hashKey, type RunningServer } from '../src/serve/index.ts'
import { diffusionFolder, metric, post, type TestModel, testServer, tiny, until } from '../test/serve/models.ts'
import { chromiumPath, launch } from './chromium.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
let folder: TestModel
let server: RunningServer

beforeAll(async () => {
  execFileSync('npm', ['run', '--silent', 'build:web'], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  folder = await diffusionFolder()
  const models = [
    { name: 'diffusion', path: folder.path },
    { name: 'base', path: tiny },
  ]
  server = await testServer({ models })
})
afterAll(async () => {
  await server?.close()
  await folder?.remove()
}, 60_000)

describe('the files', () => {
  test('come with a policy that allows nothing else', async () => {
    const response = await fetch(server.url)
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    const policy = response.headers.get('content-security-policy')!
    expect(policy).toContain("default-src 'none'")
    expect(policy).toContain("script-src 'self'")
    expect(policy).not.toContain('unsafe')
    expect(await response.text()).not.toMatch(/<style|style=|<script(?! type="module" src=)|https?:/)
  })

  test('are cached by what they hold', async () => {
    const first = await fetch(`${server.url}/playground.js`)
    const etag = first.headers.get('etag')!
    const again = await fetch(`${server.url}/playground.js`, { headers: { 'if-none-match': etag } })
    expect([first.status, again.status]).toEqual([200, 304])
  })

  test('are the only ones', async () => {
    for (const path of ['/playground.js.map', '/%2e%2e/package.json', '/index.html', '/web/', '//etc/passwd'])
      expect((await fetch(`${server.url}${path}`)).status, path).toBe(404)
  })
})

if (!chromiumPath) console.warn('no Chromium here: the playground is not tested in one (set CHROMIUM_PATH)')

describe.skipIf(!chromiumPath)('in Chromium', () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await launch()
  })
  afterAll(() => browser?.close())

  /** Opens the page and fails on errors of scripts, refusals of the policy, and requests to anywhere else. */
  async function withPage(
    act: (page: Page) => Promise<void>,
    {
      url = server.url,
      complaints = [],
      ...options
    }: BrowserContextOptions & { url?: string; complaints?: RegExp[] } = {},
  ): Promise<void> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
    context.setDefaultTimeout(30_000)
    const page = await context.newPage()
    const problems: string[] = []
    page.on('pageerror', (error) => problems.push(error.message))
    page.on('console', (message) => {
      const text = message.text()
      if (message.type() === 'error' && !complaints.some((known) => known.test(text))) problems.push(text)
    })
    page.on('request', (request) => {
      if (!request.url().startsWith(url)) problems.push(`asked ${request.url()}`)
    })
    try {
      await page.goto(url)
      await act(page)
      expect(problems).toEqual([])
    } finally {
      await context.close()
    }
  }

  const tab = (page: Page, name: string) => page.getByRole('tab', { name, exact: true }).click()
  const set = (page: Page, label: string, value: string) => page.getByLabel(label, { exact: true }).fill(value)
  const finished = (page: Page, mode: string) =>
    page.locator(`#mode-${mode} .answer[aria-busy=false]:has(.numbers li)`).last()

  async function ask(page: Page, text: string): Promise<void> {
    await page.getByLabel('Prompts are sent').selectOption('text')
    await page.locator('#chat-prompt').fill(text)
    await page.locator('#chat-prompt').press('Enter')
  }

  test('a chat forms out of order and can be replayed', async () => {
    await withPage(async (page) => {
      await set(page, 'Longest answer', '24')
      await set(page, 'Threshold', '0.3')
      const sent = page.waitForRequest((request) => request.url().endsWith('/v1/completions'))
      await ask(page, 'The people of the ')
      expect((await sent).postDataJSON()).toMatchObject({ max_tokens: 24, unmask: { threshold: 0.3 } })
      const answer = finished(page, 'chat')
      await answer.waitFor()
      await answer.getByRole('button', { name: 'Text' }).click()
      const text = await answer.locator('.text').innerText()
      await answer.getByRole('button', { name: 'Tokens' }).click()
      const tokens = answer.locator('.tokens [role=option]')
      const all = await tokens.allInnerTexts()
      // Tokens are bytes here; what ends the text has none.
      expect(all.join('').replace(/∎$/, '').replaceAll('↵', '')).toBe(text)
      const slider = answer.getByRole('slider', { name: 'Step' })
      const steps = Number(await slider.getAttribute('max'))
      expect(steps).toBeGreaterThan(1)
      expect(await answer.locator('.step').innerText()).toBe(`step ${steps} of ${steps}`)
      await slider.fill('0')
      await page.waitForFunction(() => document.querySelector('.step')?.textContent?.startsWith('step 0'))
      expect(await answer.locator('.token:not(.masked)[role=option]').count()).toBe(0)
      await slider.fill('1')
      await answer.locator('.token.fresh').first().waitFor()
      const label = await answer.locator('.token.fresh').first().getAttribute('aria-label')
      expect(label).toMatch(/^“.+” · confidence [\d.]+ % · step 1 · position \d+$/s)
      await answer.getByRole('button', { name: 'Replay' }).click()
      await page.waitForFunction((n) => document.querySelector('.step')?.textContent === `step ${n} of ${n}`, steps)
      expect((await tokens.allInnerTexts()).join('')).toBe(all.join(''))
      // Every token can be reached and read without a mouse.
      await tokens.first().focus()
      await page.keyboard.press('End')
      expect(await answer.locator('.about').innerText()).toContain(`position ${all.length}`)
      const numbers = await answer.locator('.numbers').innerText()
      expect(numbers).toMatch(/\d+ tokens?\s+\d+ forwards?\s+[\d.]+ tokens per forward/)
      expect(await page.locator('.charts svg[role=img]').count()).toBe(2)
    })
  })

  test('several selected parts are filled', async () => {
    await withPage(async (page) => {
      await tab(page, 'Infill')
      const field = page.locator('#infill-text')
      await field.fill('The people of the United States')
      const fill = page.getByRole('button', { name: 'Fill', exact: true })
      expect(await fill.isDisabled()).toBe(true)
      for (const [start, end] of [
        [4, 10],
        [18, 24],
      ] as const) {
        await field.evaluate((element: HTMLTextAreaElement, [a, b]) => element.setSelectionRange(a, b), [
          start,
          end,
        ] as const)
        await field.press('Control+m')
        await page.waitForFunction((n) => document.querySelectorAll('.holes input').length === n, start === 4 ? 1 : 2)
      }
      await page.waitForFunction(() =>
        [...document.querySelectorAll<HTMLInputElement>('.holes input')].every(({ value }) => value === '7'),
      )
      await field.press('Control+Enter')
      const answer = finished(page, 'infill')
      await answer.waitFor()
      expect(await answer.locator('.token.given').count()).toBe('The of the States'.length)
      expect(await answer.locator('[role=option].token:not(.given)').count()).toBe(14)
      await answer.getByRole('button', { name: 'Use as text' }).click()
      expect(await field.inputValue()).toMatch(/^The.{0,7} of the.{0,7} States$/s)
      expect(await page.locator('.holes li').count()).toBe(0)
    })
  })

  test('a text is corrected and what changed is shown; markup stays text', async () => {
    await withPage(async (page) => {
      await tab(page, 'Repair')
      const input = '<img src=x onerror="alert(1)"><b>The people of</b>'
      await page.locator('#repair-text').fill(input)
      await page.getByLabel('Replace where surer than').fill('1')
      await page.locator('#repair-text').press('Control+Enter')
      await finished(page, 'repair').waitFor()
      expect(await page.locator('.changes h3').innerText()).toBe('Nothing was changed')
      expect(await page.locator('.diff').innerText()).toBe(input)
      await page.getByLabel('Replace where surer than').fill('0.3')
      await page.getByRole('button', { name: 'Correct', exact: true }).click()
      await page.locator('.changes ins').first().waitFor()
      expect(await page.locator('.token.edited').count()).toBeGreaterThan(0)
      expect(await page.locator('main img, main b').count()).toBe(0)
      expect(await page.locator('#mode-repair').innerText()).toContain('a model trained to correct tokens')
    })
  })

  test('two models are compared', async () => {
    await withPage(async (page) => {
      await page.getByLabel('Prompts are sent').selectOption('text')
      await set(page, 'Longest answer', '16')
      await tab(page, 'Compare')
      expect(await page.getByLabel('First model').inputValue()).toBe('diffusion')
      expect(await page.getByLabel('Second model').inputValue()).toBe('base')
      await page.locator('#compare-prompt').fill('reverse(stone)=')
      await page.locator('#compare-prompt').press('Enter')
      await page.waitForFunction(() => (document.querySelector('.verdict')?.textContent ?? '') !== '')
      expect(await page.locator('.verdict').innerText()).toMatch(/wrote [\d.]+ × as many tokens per second/)
      expect(await page.locator('.column').nth(1).locator('.numbers').innerText()).toContain('1.00 tokens per forward')
      expect(await page.locator('.charts figure').first().locator('.point').count()).toBe(2)
      // Models that write from left to right are marked where they cannot do what is asked.
      await tab(page, 'Infill')
      await page.getByLabel('Model', { exact: true }).selectOption('base')
      expect(await page.locator('#mode-infill .notice').innerText()).toContain('cannot fill')
    })
  })

  test('stop gives the place back and keeps what there is', async () => {
    // What ends a text is forbidden, and others are at work: no generation is over before it is stopped.
    const long = { max_tokens: 1900, logit_bias: { 256: -100, 258: -100 } }
    const others = new AbortController()
    const body = { model: 'base', prompt: 'The people', n: 16, ...long }
    const busy = post(`${server.url}/v1/completions`, body, { signal: others.signal }).catch(() => undefined)
    await withPage(async (page) => {
      await page.route('**/v1/completions', (route) => {
        const postData = { ...(route.request().postDataJSON() as object), ...long }
        return route.continue({ postData })
      })
      await page.getByLabel('Model', { exact: true }).selectOption('base')
      await set(page, 'Longest answer', '1900')
      await ask(page, 'The people of the ')
      await page.locator('.answer .token').first().waitFor()
      await page.keyboard.press('Escape')
      await page.getByText('stopped', { exact: true }).waitFor()
      others.abort()
      await busy
      await until(async () => (await metric(server.url, 'unmask_running{model="base"}')) === 0)
      expect(await page.locator('.answer [role=option]').count()).toBeGreaterThan(0)
      await page.getByRole('button', { name: 'Send' }).waitFor()
    })
  })

  test('mistakes are shown where they are made', async () => {
    await withPage(
      async (page) => {
        await set(page, 'Temperature', '7')
        await ask(page, 'a')
        expect(await page.locator('.answer [role=alert]').innerText()).toContain('Temperature')
        await set(page, 'Temperature', '')
        await set(page, 'Longest answer', '5000')
        await ask(page, 'a')
        await page.getByText('at most 4096 tokens').waitFor()
        expect(await page.locator('.answer [role=alert]').last().innerText()).toContain('max_tokens')
      },
      { complaints: [/status of 400/] },
    )
  })

  test('a key is asked for and kept nowhere', async () => {
    const guarded = await testServer({
      models: [{ name: 'base', path: tiny }],
      api_keys: [{ name: 'a', sha256: hashKey('secret-of-a') }],
    })
    try {
      await withPage(
        async (page) => {
          await page.getByRole('button', { name: 'Enter the API key' }).click()
          const key = page.getByLabel('API key')
          expect(await key.evaluate((element) => element === document.activeElement)).toBe(true)
          expect(await key.getAttribute('type')).toBe('password')
          await page.keyboard.type('secret-of-a')
          await page.keyboard.press('Tab')
          await page.locator('#model option[value=base]').waitFor({ state: 'attached' })
          await ask(page, 'reverse(stone)=')
          await finished(page, 'chat').waitFor()
          const kept = await page.evaluate(() =>
            JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]),
          )
          expect(kept).toBe('[{},{},""]')
          await page.reload()
          await page.getByRole('button', { name: 'Enter the API key' }).waitFor()
        },
        { url: guarded.url, complaints: [/status of 401/] },
      )
    } finally {
      await guarded.close()
    }
  })

  test('a server that went away is said and found again', async () => {
    await withPage(
      async (page) => {
        await page.locator('#model option[value=base]').waitFor({ state: 'attached' })
        await page.context().setOffline(true)
        await ask(page, 'a')
        await page.getByRole('alert').getByText('cannot be reached').waitFor()
        await page.context().setOffline(false)
        await ask(page, 'reverse(stone)=')
        await finished(page, 'chat').waitFor()
      },
      { complaints: [/ERR_INTERNET_DISCONNECTED/] },
    )
  })

  test('keyboard, theme, focus', async () => {
    await withPage(
      async (page) => {
        const theme = page.getByRole('button', { name: 'Dark theme' })
        const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
        expect(await theme.getAttribute('aria-pressed')).toBe('true')
        const dark = await paper()
        await theme.click()
        expect(await paper()).not.toBe(dark)
        await page.locator('#chat-prompt').focus()
        await page.keyboard.press('Alt+2')
        expect(await page.evaluate(() => document.activeElement?.id)).toBe('infill-text')
        await page.getByRole('tab', { name: 'Infill' }).focus()
        await page.keyboard.press('ArrowRight')
        expect(await page.evaluate(() => document.activeElement?.id)).toBe('tab-repair')
        const outline = await page.evaluate(() => getComputedStyle(document.activeElement!).outlineStyle)
        expect(outline).toBe('solid')
        await page.keyboard.press('?')
        expect(await page.getByRole('dialog').isVisible()).toBe(true)
        await page.keyboard.press('Escape')
        expect(await page.getByRole('dialog').isVisible()).toBe(false)
        // The page has the strategies that the server has.
        const offered = await page
          .getByLabel('Strategy')
          .locator('option')
          .evaluateAll((options) => options.map((option) => (option as HTMLOptionElement).value))
        expect(offered.sort()).toEqual(['', ...strategyNames].sort())
        // Every control has a name.
        const nameless = await page.evaluate(() =>
          [...document.querySelectorAll('button, input, select, textarea')]
            .filter((element) => {
              const { labels } = element as HTMLInputElement
              return !(element.textContent?.trim() || element.getAttribute('aria-label') || labels?.length)
            })
            .map(({ outerHTML }) => outerHTML),
        )
        expect(nameless).toEqual([])
      },
      { colorScheme: 'dark' },
    )
  })

  test('a phone shows all of it without sideways scrolling', async () => {
    await withPage(
      async (page) => {
        await page.locator('#model option[value=base]').waitFor({ state: 'attached' })
        const sideways = () =>
          page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
        for (const name of ['Infill', 'Repair', 'Compare', 'Chat']) {
          await tab(page, name)
          expect([name, await sideways()]).toEqual([name, 0])
        }
        await page.getByRole('button', { name: 'sort(8304117)=' }).first().click()
        await finished(page, 'chat').waitFor()
        expect(await sideways()).toBe(0)
        await page.getByRole('button', { name: 'Settings and session' }).click()
        expect(await page.getByLabel('Temperature').isVisible()).toBe(true)
        await page.keyboard.press('Escape')
        expect(await page.getByLabel('Temperature').isVisible()).toBe(false)
      },
      { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true },
    )
  })

  const pictures = async () => {
    const images = fileURLToPath(new URL('../docs/images/', import.meta.url))
    mkdirSync(images, { recursive: true })
    const models = [
      { name: 'converted', path: process.env.PLAYGROUND_MODEL ?? folder.path },
      { name: 'base', path: tiny },
    ]
    const shown = await testServer({ models })
    const picture = (name: string, options: BrowserContextOptions, act: (page: Page) => Promise<void>) =>
      withPage(
        async (page) => {
          await page.locator('#model option[value=base]').waitFor({ state: 'attached' })
          await act(page)
          await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur())
          await page.mouse.move(0, 0)
          await page.screenshot({ path: `${images}playground-${name}.png`, animations: 'disabled' })
        },
        { url: shown.url, viewport: { width: 1280, height: 760 }, ...options },
      )
    try {
      await picture('chat', {}, async (page) => {
        for (const prompt of ['reverse(diffusion)=', 'sort(8304117)=', 'count(deaddeefabcdabc)=']) {
          await ask(page, prompt)
          await page.waitForFunction((text) => {
            const last = [...document.querySelectorAll('.prompt')].at(-1)
            return last?.textContent === text && last.nextElementSibling?.querySelector('.numbers li') !== null
          }, prompt)
        }
        const slider = page.locator('.answer').last().getByRole('slider', { name: 'Step' })
        await slider.fill('1')
        await page.locator('.token.fresh').first().waitFor()
        const legend = page.locator('.answer').last().locator('.legend')
        await legend.locator('summary').click()
        await legend.locator('li').last().waitFor()
        await page.locator('.answer').last().scrollIntoViewIfNeeded()
        await page.locator('.chat .scroller').evaluate((element) => element.scrollTo(0, element.scrollHeight))
      })
      await picture('infill', {}, async (page) => {
        await tab(page, 'Infill')
        const field = page.locator('#infill-text')
        await field.fill('count(deaddeefabcd)=a2 b1 c1 d4 e3 f1')
        for (const [index, part] of ['b1 c1', 'e3'].entries()) {
          await field.evaluate((element: HTMLTextAreaElement, text) => {
            const at = element.value.lastIndexOf(text)
            element.setSelectionRange(at, at + text.length)
          }, part)
          await field.press('Control+m')
          await page.waitForFunction((n) => document.querySelectorAll('.holes input').length === n, index + 1)
        }
        await page.waitForFunction(() =>
          [...document.querySelectorAll<HTMLInputElement>('.holes input')].every(({ value }) => Number(value) > 1),
        )
        await field.press('Control+Enter')
        await finished(page, 'infill').waitFor()
      })
      await picture('repair', {}, async (page) => {
        await tab(page, 'Repair')
        await page.locator('#repair-text').fill('reverse(diffusion)=noisvffid')
        await page.getByLabel('Replace where surer than').fill('0.97')
        await page.locator('#repair-text').press('Control+Enter')
        await page.locator('.changes h3').waitFor()
      })
      await picture('compare', { colorScheme: 'dark' }, async (page) => {
        await page.getByLabel('Prompts are sent').selectOption('text')
        await tab(page, 'Compare')
        for (const prompt of ['sort(8304117)=', 'reverse(diffusion)=', 'count(deaddeefabcdabc)=']) {
          await page.locator('#compare-prompt').fill(prompt)
          await page.locator('#compare-prompt').press('Enter')
          await page.waitForFunction(() => (document.querySelector('.verdict')?.textContent ?? '') !== '')
        }
      })
      const phone = { viewport: { width: 390, height: 760 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true }
      await picture('phone', { ...phone, colorScheme: 'dark' }, async (page) => {
        await page.getByRole('button', { name: 'reverse(stone)=' }).first().click()
        await finished(page, 'chat').waitFor()
      })
    } finally {
      await shown.close()
    }
  }
  if (process.env.SCREENSHOTS) test('pictures for the documentation', pictures, 120_000)
})
