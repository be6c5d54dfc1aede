// What a model came from, as provenance.json: base, data, recipe, versions, what it cost, scores. Hashes are SHA-256.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { exists, readJsonObject } from '../checkpoint/file.ts'
import { openGguf } from '../checkpoint/gguf.ts'
import { packaged } from '../checkpoint/names.ts'
import { UserError } from '../core/types.ts'
import { findFiles } from '../data/files.ts'
import { isRecord } from '../formats/json.ts'
import { canonicalJson } from '../formats/json-differences.ts'
import type { Account } from './account.ts'
import { type Provenance, provenance, publishable } from './provenance.ts'

export const recordFile = 'provenance.json'

export interface HashedFile {
  name: string
  bytes: number
  sha256: string
}

/** A model that another was made from. */
export interface Origin {
  /** As it was named; of a path the last part. */
  name: string
  /** Its repository on the Hub, where it has one. */
  hub: string | undefined
  /** As its model card, or the metadata of a GGUF file, names it. */
  license: string | undefined
  /** Of the list of its files with their hashes. */
  sha256: string
  files: HashedFile[]
  /** How it was made itself, where it says so. */
  record: RunRecord | undefined
}

export interface Score {
  name: string
  value: string
  /** How it was measured. */
  settings: string
}

/** What was done to the base. */
export type Method = 'convert' | 'sft' | 'train' | 'dpo' | 'rl' | 'accelerate' | 'quantize' | 'merge'

export interface RunRecord extends Provenance {
  format: 1
  method: Method
  /** Commit of unmask, with `-dirty` where files were changed; undefined where it is no checkout. */
  commit: string | undefined
  base: Origin
  /** Files that were trained on, and those that were held out where they are files of their own. */
  data: HashedFile[]
  heldOut: HashedFile[]
  recipe: { sha256: string; settings: Record<string, unknown> }
  /** Of the training; undefined where nothing was trained. */
  account: Account | undefined
  license: string | undefined
  datasets: string[]
  scores: Score[]
}

export interface RecordOptions {
  method: Method
  command: string
  threads: number | undefined
  /** The base as the user named it, and where it is. */
  base: { name: string; path: string }
  data: readonly string[]
  heldOut: readonly string[]
  settings: Record<string, unknown>
  card: { license?: string | undefined; datasets: readonly string[] }
  signal?: AbortSignal | undefined
}

/** Describes what is about to be made: reads and hashes base and data. */
export async function startRecord(options: RecordOptions): Promise<RunRecord> {
  const { method, command, threads, card, signal } = options
  const base = await originOf(options.base, signal)
  const settings = publishableSettings(options.settings)
  return {
    format: 1,
    method,
    ...provenance(command, threads),
    commit: await commit(),
    base,
    data: await hashData(options.data, signal),
    heldOut: await hashData(options.heldOut, signal),
    recipe: { sha256: sha256(canonicalJson(settings)), settings },
    account: undefined,
    license: card.license ?? base.license,
    datasets: [...new Set([...(base.record?.datasets ?? []), ...card.datasets])],
    scores: [],
  }
}

/** Describes a model that is made of another without training. */
export const derivedRecord = (
  options: Pick<RecordOptions, 'method' | 'command' | 'base' | 'settings' | 'signal'>,
): Promise<RunRecord> => startRecord({ ...options, threads: undefined, data: [], heldOut: [], card: { datasets: [] } })

/** The record that lies in a folder; undefined where there is none. Throws UserError where it cannot be read. */
export async function readRecord(folder: string): Promise<RunRecord | undefined> {
  const path = join(folder, recordFile)
  if (!(await exists(path))) return undefined
  const record = await readJsonObject(path)
  const wrong = [
    ...(record.format === 1 ? [] : ['format']),
    ...['method', 'command', 'created'].filter((key) => typeof record[key] !== 'string'),
    ...['base', 'recipe', 'versions', 'machine'].filter((key) => !isRecord(record[key])),
    ...['data', 'heldOut', 'datasets', 'scores'].filter((key) => !Array.isArray(record[key])),
  ]
  if (wrong.length > 0) throw new UserError(`${path}: ${wrong.join(', ')}: missing or not of the right type`)
  return record as unknown as RunRecord
}

export const recordText = (record: RunRecord): string => `${JSON.stringify(record, null, 2)}\n`

/** The record and those of its bases, the first model first. */
export function lineage(record: RunRecord): RunRecord[] {
  const found: RunRecord[] = []
  for (let one: RunRecord | undefined = record; one; one = one.base.record) found.unshift(one)
  return found
}

/** Settings without paths that name people and machines. */
export const publishableSettings = (settings: object): Record<string, unknown> =>
  JSON.parse(JSON.stringify(settings), (_, value: unknown) =>
    typeof value === 'string' ? publishable(value) : value,
  ) as Record<string, unknown>

/** Files of a model folder that make the model. */
const isModelFile = (name: string): boolean =>
  /\.(safetensors|json|jinja|gguf|txt|model)$/.test(name) && name !== recordFile && !name.startsWith('.')

/** The files of a model, or the one file that it is, with their hashes. */
async function hashFiles(path: string, signal?: AbortSignal): Promise<HashedFile[]> {
  const isFolder = (await stat(path)).isDirectory()
  const names = isFolder ? (await readdir(path)).filter(isModelFile).sort() : [basename(path)]
  const files: HashedFile[] = []
  for (const file of names) files.push(await hashFile(join(isFolder ? path : dirname(path), file), file, signal))
  return files
}

const hashOf = (files: readonly HashedFile[]): string =>
  sha256(files.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join(''))

/** One hash of a model: of the list of its files with their hashes. */
export const hashModel = async (path: string): Promise<string> => hashOf(await hashFiles(path))

async function originOf({ name, path }: RecordOptions['base'], signal: AbortSignal | undefined): Promise<Origin> {
  const isFolder = (await stat(path)).isDirectory()
  const files = await hashFiles(path, signal)
  return {
    name: publishable(name),
    hub: (await exists(name)) ? undefined : hubName(name),
    license: await licenseOf(path, isFolder),
    sha256: hashOf(files),
    files,
    record: isFolder ? await readRecord(path) : undefined,
  }
}

const hubName = (source: string): string | undefined =>
  /^(?:hf:)?([\w-][\w.-]*\/[\w-][\w.-]*)(?:\/[\w.-]+\.gguf)?(?:@[\w./-]+)?$/.exec(source)?.[1]

/** The licence that a model states: in the head of its card, or in the metadata of a GGUF file. */
async function licenseOf(path: string, isFolder: boolean): Promise<string | undefined> {
  if (isFolder) {
    const card = join(path, 'README.md')
    const head = (await exists(card))
      ? /^---\r?\n([\s\S]*?)\r?\n---/.exec(await readFile(card, 'utf8'))?.[1]
      : undefined
    return identifier(head === undefined ? undefined : yamlOf(head).license)
  }
  if (!path.endsWith('.gguf')) return undefined
  const file = await openGguf(path)
  try {
    return identifier(file.metadata.get('general.license'))
  } finally {
    await file.close()
  }
}

const identifier = (value: unknown): string | undefined =>
  typeof value === 'string' && /^[\w.+-]+$/.test(value) ? value.toLowerCase() : undefined

/** A card is foreign: what is no YAML says nothing. */
function yamlOf(text: string): Record<string, unknown> {
  try {
    const value: unknown = parse(text, { maxAliasCount: 10, logLevel: 'silent' })
    return isRecord(value) ? value : {}
  } catch {
    return {}
  }
}

/** The data files that the paths name, with their hashes. */
export async function hashData(paths: readonly string[], signal?: AbortSignal): Promise<HashedFile[]> {
  const files: HashedFile[] = []
  for (const path of paths)
    for (const file of await findFiles(path)) files.push(await hashFile(file.path, publishable(file.path), signal))
  return files
}

async function hashFile(path: string, name: string, signal: AbortSignal | undefined): Promise<HashedFile> {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of createReadStream(path, signal ? { signal } : {})) {
    hash.update(chunk as Buffer)
    bytes += (chunk as Buffer).length
  }
  return { name, bytes, sha256: hash.digest('hex') }
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** The commit of this checkout of unmask; undefined where it was installed as a package. */
async function commit(): Promise<string | undefined> {
  if (!(await exists(packaged('.git')))) return undefined
  try {
    const options = ['describe', '--always', '--dirty', '--abbrev=40', '--exclude', '*']
    return (await promisify(execFile)('git', ['-C', packaged(), ...options])).stdout.trim()
  } catch {
    // No git on this machine.
    return undefined
  }
}
