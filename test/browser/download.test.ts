// Downloads and what is kept, in a real Chromium: each fault ends in a message, and loading again works.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { writeWebModel } from '../../src/jobs/web-model.ts'
import { chromiumPath, launch } from '../../web/chromium.ts'
import { tiny, until } from '../serve/models.ts'
import { loadInPage, type OpenPage, openPage } from './page.ts'
import { bundle, runtimeFolder, type Site, startSite } from './site.ts'

const WEIGHTS = '/model/model.safetensors'

describe.skipIf(!chromiumPath)('in Chromium', () => {
  let browser: Browser
  let folder: string
  let lib: Awaited<ReturnType<typeof bundle>>
  let site: Site
  let opened: OpenPage | undefined

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'unmask-download-'))
    for (const name of ['model', 'other']) {
      await mkdir(join(folder, name))
      await writeWebModel(tiny, join(folder, name), name)
    }
    lib = await bundle()
    const folders = { '/lib/': lib.folder, '/runtime/': runtimeFolder }
    site = await startSite({
      folders: { ...folders, '/model/': join(folder, 'model'), '/other/': join(folder, 'other') },
    })
    browser = await launch()
  })
  afterEach(async () => {
    site.intercept = () => false
    site.asked.length = 0
    await opened?.context.close()
    opened = undefined
  })
  afterAll(async () => {
    await browser?.close()
    await site?.close()
    await lib?.remove()
    await rm(folder, { recursive: true })
  })

  async function open(): Promise<Page> {
    opened = await openPage(browser, site)
    return opened.page
  }
  const fetched = () => site.asked.filter((path) => path.startsWith('/model/') || path.startsWith('/other/'))
  const answers = (page: Page) =>
    page.evaluate(`(async () => {
      const writing = unmask.generate(model, 'reverse(stone)=')
      for (;;) { const { done, value } = await writing.next(); if (done) return value.text }
    })()`)

  test('the second time nothing is fetched, without a network neither', async () => {
    const page = await open()
    expect((await loadInPage(page, '/model/')).phases).toEqual(['download', 'start'])
    expect(await answers(page)).toBe('enots')
    site.asked.length = 0
    await loadInPage(page, '/model/', { update: false })
    expect(fetched()).toEqual([])
    await loadInPage(page, '/model/')
    expect(fetched()).toEqual(['/model/unmask.json'])
    site.intercept = (path, response) => path.startsWith('/model/') && Boolean(response.destroy())
    await loadInPage(page, '/model/')
    expect(await answers(page)).toBe('enots')
    expect(await page.evaluate('unmask.storedModels()')).toMatchObject([{ name: 'model', url: `${site.url}model/` }])
  })

  test('a download that stops says so, and goes on where it stopped', async () => {
    const page = await open()
    const bytes = await readFile(join(folder, 'model', 'model.safetensors'))
    site.intercept = (path, response) => {
      if (path !== WEIGHTS) return false
      response.writeHead(200, { 'content-length': bytes.length })
      response.write(bytes.subarray(0, 1_000_000), () => response.destroy())
      return true
    }
    await expect(loadInPage(page, '/model/')).rejects.toThrow(
      /^network: The download stopped at [\d.]+ MB of 3\.3 MB of model\.safetensors .* load again to go on\.$/,
    )
    site.intercept = () => false
    site.asked.length = 0
    await loadInPage(page, '/model/')
    expect(fetched()).toEqual(['/model/unmask.json', WEIGHTS])
    expect(await answers(page)).toBe('enots')
  })

  test('a file that was changed on its way is not used', async () => {
    const page = await open()
    const bytes = await readFile(join(folder, 'model', 'model.safetensors'))
    bytes[2_000_000]! ^= 1
    site.intercept = (path, response) => path === WEIGHTS && Boolean(response.end(bytes))
    await expect(loadInPage(page, '/model/')).rejects.toThrow(
      /^corrupt: model\.safetensors is not the file that the model was exported with: its hash is another\./,
    )
    site.intercept = (path, response) => path === WEIGHTS && Boolean(response.end(Buffer.concat([bytes, bytes])))
    await expect(loadInPage(page, '/model/')).rejects.toThrow(/^corrupt: .* more than \d+ bytes/)
    site.intercept = () => false
    await loadInPage(page, '/model/')
    expect(await answers(page)).toBe('enots')
  })

  test('a kept file that was changed is fetched again', async () => {
    const page = await open()
    await loadInPage(page, '/model/')
    await page.evaluate(`(async () => {
      const cache = await caches.open('unmask-models')
      for (const key of await cache.keys())
        if (key.url.includes('/files/')) await cache.put(key, new Response(new Uint8Array(3289528)))
    })()`)
    site.asked.length = 0
    await loadInPage(page, '/model/')
    expect(fetched()).toContain(WEIGHTS)
    expect(await answers(page)).toBe('enots')
  })

  test('where there is no room it says how much, and loads without keeping the model', async () => {
    const page = await open()
    const session = await opened!.context.newCDPSession(page)
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(site.url).origin, quotaSize: 1_000_000 })
    await expect(loadInPage(page, '/model/')).rejects.toThrow(
      /^storage: There is no room to keep the model: it needs 3\.3 MB, this browser gives this site [\d.]+ MB more\./,
    )
    await loadInPage(page, '/model/', { keep: false })
    expect(await answers(page)).toBe('enots')
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(site.url).origin })
    await loadInPage(page, '/model/')
    expect(await page.evaluate('unmask.storedModels()')).toHaveLength(1)
  })

  test('a second tab waits for the first, and takes over when that is closed', async () => {
    const page = await open()
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    let requests = 0
    site.intercept = async (path) => {
      if (path === WEIGHTS && ++requests === 1) await held
      return false
    }
    const first = loadInPage(page, '/model/').catch((error) => error)
    await until(() => requests === 1)
    const second = await openPage(browser, site, opened!.context)
    const loading = loadInPage(second.page, '/model/')
    await until(() => second.page.evaluate(`globalThis.phases?.has('wait') === true`))
    await page.close()
    const { phases } = await loading
    release()
    await first
    expect(phases).toEqual(['wait', 'download', 'start'])
    expect(await answers(second.page)).toBe('enots')
  })

  test('a new version fetches what changed; files of the old one are removed; models share what is the same', async () => {
    const page = await open()
    await loadInPage(page, '/model/')
    site.asked.length = 0
    await loadInPage(page, '/other/')
    expect(fetched()).toEqual(['/other/unmask.json'])
    const config = join(folder, 'other', 'generation_config.json')
    const before = await readFile(config, 'utf8')
    const count = () =>
      page.evaluate(`caches.open('unmask-models').then((cache) => cache.keys()).then((keys) => keys.length)`)
    const files = (await count()) as number
    await writeFile(config, before.replace('{', '{ "temperature": 0,'))
    const manifest = join(folder, 'other', 'unmask.json')
    const { createHash } = await import('node:crypto')
    const changed = await readFile(config)
    const value = JSON.parse(await readFile(manifest, 'utf8'))
    for (const file of value.files)
      if (file.path === 'generation_config.json')
        Object.assign(file, { bytes: changed.length, sha256: createHash('sha256').update(changed).digest('hex') })
    await writeFile(manifest, JSON.stringify(value))
    site.asked.length = 0
    await loadInPage(page, '/other/')
    expect(fetched()).toEqual(['/other/unmask.json', '/other/generation_config.json'])
    expect(await count()).toBe(files + 1)
    await page.evaluate(`unmask.removeModel('/model/')`)
    await page.evaluate(`unmask.removeModel('/other')`)
    expect(await count()).toBe(0)
    expect(await readdir(join(folder, 'model'))).toContain('unmask.json')
  })

  test('loading can be stopped, and a wrong address says what it needs', async () => {
    const page = await open()
    await expect(loadInPage(page, '/nothing/')).rejects.toThrow(
      /^network: .*nothing\/unmask\.json cannot be read .*404/,
    )
    site.intercept = (path) => (path === WEIGHTS ? new Promise<boolean>(() => {}) : false)
    const reason = page.evaluate(`(async () => {
      const stop = new AbortController()
      setTimeout(() => stop.abort(new Error('enough')), 500)
      return unmask.load('/model/', { runtime, signal: stop.signal }).catch((error) => error.message)
    })()`)
    expect(await reason).toBe('enough')
  })

  test('without isolation there is one thread, and the reason is told', async () => {
    const plain = await startSite({
      isolated: false,
      folders: { '/lib/': lib.folder, '/runtime/': runtimeFolder, '/model/': join(folder, 'model') },
    })
    opened = await openPage(browser, plain)
    const { backend } = await loadInPage(opened.page, '/model/')
    expect(backend).toMatchObject({ device: 'wasm', threads: 1, why: expect.stringContaining('COOP') })
    expect(await answers(opened.page)).toBe('enots')
    await plain.close()
  })
})
