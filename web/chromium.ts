// Chromium for the tests of the playground: CHROMIUM_PATH, or where systems have it.
import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'

const usual = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/usr/bin/google-chrome-stable',
  '/snap/bin/chromium',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
]

/** Undefined where there is none. */
export const chromiumPath = [process.env.CHROMIUM_PATH, ...usual].find((path) => path && existsSync(path))

export function launch(): Promise<Browser> {
  // As root Chromium has no sandbox; what it opens here is our own page.
  const root = process.getuid?.() === 0
  return chromium.launch({ executablePath: chromiumPath!, args: root ? ['--no-sandbox'] : [] })
}
