// Builds the examples for browsers and uses them in Chromium: `npm run check:examples [-- NAME...]`. Needs `npm run build` before.
import { execFileSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { build } from 'vite'
import { exportWeb } from '../src/jobs/export-web.ts'
import { startSite } from '../test/browser/site.ts'
import { until } from '../test/serve/models.ts'
import { chromiumPath, launch } from '../web/chromium.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const PROMPT = 'reverse(stone)='
const ANSWER = 'enots'

/** A copy of an example, with the package as `npm install` would put it there. */
async function install(name: string, folder: string): Promise<string> {
  const path = join(folder, name)
  await cp(join(root, 'examples', name), path, { recursive: true })
  await mkdir(join(path, 'node_modules'))
  await symlink(root, join(path, 'node_modules', 'unmask'))
  await symlink(join(root, 'node_modules', 'esbuild'), join(path, 'node_modules', 'esbuild'))
  return path
}

async function checkVite(folder: string, model: string): Promise<void> {
  const path = await install('vite', folder)
  await cp(model, join(path, 'public', 'model'), { recursive: true })
  await build({ root: path, base: './', logLevel: 'warn' })
  const site = await startSite({ folders: { '/': join(path, 'dist') } })
  const browser = await launch()
  try {
    const page = await browser.newPage()
    page.on('pageerror', ({ message }) => process.stderr.write(`${message}\n`))
    await page.goto(site.url)
    await page.getByRole('textbox').fill(PROMPT)
    await page.getByRole('button').click({ timeout: 120_000 })
    await until(async () => (await page.locator('output').innerText()) === ANSWER)
    console.log(`vite: ${await page.locator('p').innerText()}; ${PROMPT}${ANSWER}`)
  } finally {
    await browser.close()
    await site.close()
  }
}

async function checkExtension(folder: string, model: string): Promise<void> {
  const path = await install('chrome-extension', folder)
  const out = join(folder, 'extension')
  execFileSync(process.execPath, [join(path, 'build.mjs'), model, out], { stdio: 'inherit' })
  const site = await startSite({ folders: {} })
  site.intercept = (_, response) => Boolean(response.end('<!doctype html><textarea></textarea>'))
  const context = await chromium.launchPersistentContext(join(folder, 'profile'), {
    executablePath: chromiumPath!,
    // Playwright's older headless mode has no extensions.
    args: [`--disable-extensions-except=${out}`, `--load-extension=${out}`, '--headless=new'],
    ignoreDefaultArgs: ['--disable-extensions'],
  })
  try {
    const page = await context.newPage()
    await page.goto(site.url)
    const field = page.locator('textarea')
    await field.fill(PROMPT)
    await field.press('Control+Space')
    await until(async () => (await field.inputValue()) === PROMPT + ANSWER)
    console.log(`chrome-extension: ${await field.inputValue()}`)
  } finally {
    await context.close()
    await site.close()
  }
}

const checks: Record<string, (folder: string, model: string) => Promise<void>> = {
  vite: checkVite,
  'chrome-extension': checkExtension,
}
const chosen = process.argv.slice(2)
const folder = await mkdtemp(join(tmpdir(), 'unmask-examples-'))
try {
  const model = join(folder, 'model')
  await exportWeb({ model: 'tiny', out: model })
  for (const [name, check] of Object.entries(checks))
    if (chosen.length === 0 || chosen.includes(name)) await check(folder, model)
} finally {
  await rm(folder, { recursive: true })
}
