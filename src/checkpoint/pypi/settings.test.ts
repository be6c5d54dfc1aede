import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { readIndexSettings } from './settings.ts'

let home: string
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'unmask-pip-'))
})
afterEach(() => rm(home, { recursive: true }))

async function write(path: string, text: string): Promise<string> {
  const file = join(home, path)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, text)
  return file
}

/** As on Linux, without the folders of the machine but /etc/pip.conf, which cannot be moved. */
const read = (env: NodeJS.ProcessEnv = {}) =>
  readIndexSettings({ env: { XDG_CONFIG_DIRS: join(home, 'xdg'), ...env }, platform: 'linux', home })

it('are those of the public index where nothing is set', async () => {
  expect(await readIndexSettings({ env: { PIP_CONFIG_FILE: '/dev/null' }, home })).toEqual({
    indexes: ['https://pypi.org/simple'],
    findLinks: [],
    certificates: undefined,
    proxy: undefined,
    trustedHosts: [],
  })
})

it('come from the files in their order, then from the environment', async () => {
  await write('xdg/pip/pip.conf', '[global]\nindex-url = https://global.example/simple\nproxy = http://proxy:1\n')
  await write('.pip/pip.conf', '[global]\nindex-url = https://legacy.example/simple\n')
  await write('.config/pip/pip.conf', '[global]\nindex_url: https://user.example/simple/\n')
  expect(await read()).toMatchObject({ indexes: ['https://user.example/simple'], proxy: 'http://proxy:1' })
  await write('venv/pip.conf', '[download]\nindex-url = https://venv.example/simple\n[global]\nindex-url = x')
  expect(await read({ VIRTUAL_ENV: join(home, 'venv') })).toMatchObject({ indexes: ['https://venv.example/simple'] })
  const named = await write('named.conf', '[global]\nproxy = http://other:2\n')
  expect(await read({ PIP_CONFIG_FILE: named })).toMatchObject({
    indexes: ['https://global.example/simple'],
    proxy: 'http://other:2',
  })
  expect(await read({ PIP_INDEX_URL: 'https://env.example' })).toMatchObject({ indexes: ['https://env.example'] })
  expect(await read({ PIP_CONFIG_FILE: '/dev/null' })).toMatchObject({ indexes: ['https://pypi.org/simple'] })
})

it('may be lists, over several lines, with paths, comments and passwords', async () => {
  await write(
    '.config/pip/pip.conf',
    `# comment
[global]
; another
extra-index-url =
    https://user:pass@one.example/simple

    # between
    https://two.example/simple/
find-links = /wheels https://links.example/page.html
trusted-host = a.example b.example:8080
cert = /certs.pem
[install]
index-url = https://not-for-download.example
`,
  )
  expect(await read()).toMatchObject({
    indexes: ['https://pypi.org/simple', 'https://user:pass@one.example/simple', 'https://two.example/simple'],
    findLinks: [pathToFileURL('/wheels').href, 'https://links.example/page.html'],
    trustedHosts: ['a.example', 'b.example:8080'],
    certificates: '/certs.pem',
  })
  expect(await read({ PIP_NO_INDEX: 'true', PIP_CERT: '/mine.pem' })).toMatchObject({
    indexes: [],
    certificates: '/mine.pem',
  })
})

it('of a file that is no configuration are an error', async () => {
  await write('.config/pip/pip.conf', '[global]\nnonsense\n')
  await expect(read()).rejects.toThrow(/pip.conf.*not a setting: nonsense/)
})
