// From paths, folders and globs to the list of data files. Does not open them.
import { readdir, stat } from 'node:fs/promises'
import { extname, join, sep } from 'node:path'
import { UserError } from '../core/types.ts'

export interface DataFile {
  path: string
  size: number
  format: 'txt' | 'jsonl' | 'parquet'
}

/** Files among which a document is drawn with the probability weight / sum of weights. */
export interface Source {
  files: DataFile[]
  weight: number
}

const FORMATS: Record<string, DataFile['format']> = {
  '.txt': 'txt',
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.parquet': 'parquet',
}

/** All files as one source or, where any of the paths has a weight, the files of each as a source of its own. */
export async function findSources(paths: readonly (string | { path: string; weight?: number })[]): Promise<Source[]> {
  if (paths.length === 0) throw new UserError('no data: name at least one file, folder or glob')
  const found: Source[] = []
  for (const entry of paths) {
    const { path, weight = 1 } = typeof entry === 'string' ? { path: entry } : entry
    if (!(weight > 0 && Number.isFinite(weight))) throw new UserError(`${path}: weight ${weight} is not above 0`)
    found.push({ files: await findFiles(path), weight })
  }
  if (paths.some((entry) => typeof entry === 'object' && entry.weight !== undefined)) return found
  const files = new Map(found.flatMap((source) => source.files).map((file) => [file.path, file]))
  return [{ files: [...files.values()], weight: 1 }]
}

/**
 * The data files that `path` names, sorted: a file, a folder (searched through; files of other types in it are passed
 * over), or a glob with `*`, `**`, `?` and `{a,b}`. UserError where nothing is found or a named file has no known type.
 */
export async function findFiles(path: string): Promise<DataFile[]> {
  const named = await stat(path).catch(() => undefined)
  if (named?.isFile()) {
    const format = formatOf(path)
    if (format === undefined) {
      throw new UserError(`${path}: unknown type of data; use .txt, .jsonl, .ndjson or .parquet`)
    }
    return [{ path, size: named.size, format }]
  }
  const glob = named === undefined && /[*?{]/.test(path)
  if (named === undefined && !glob) throw new UserError(`${path}: no such file or folder`)
  const root = glob ? globRoot(path) : path
  const matches = glob ? globPattern(path) : undefined
  const files: DataFile[] = []
  for (const name of await listFolder(root)) {
    const format = formatOf(name)
    if (format === undefined || (matches !== undefined && !matches.test(toSlashes(name)))) continue
    const info = await stat(name)
    if (info.isFile()) files.push({ path: name, size: info.size, format })
  }
  if (files.length === 0) throw new UserError(`${path}: no .txt, .jsonl, .ndjson or .parquet file found`)
  return files.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
}

const formatOf = (path: string) => FORMATS[extname(path).toLowerCase()]

const toSlashes = (path: string) => path.split(sep).join('/')

/** Everything below a folder, but not what a name that begins with a dot hides. */
async function listFolder(root: string): Promise<string[]> {
  const names = await readdir(root, { recursive: true }).catch(() => [])
  return names.filter((name) => !name.split(sep).some((part) => part.startsWith('.'))).map((name) => join(root, name))
}

/** The folders before the first one with a wildcard. */
function globRoot(pattern: string): string {
  const parts = toSlashes(pattern).split('/')
  const first = parts.findIndex((part) => /[*?{]/.test(part))
  return parts.slice(0, first).join('/') || (pattern.startsWith('/') ? '/' : '.')
}

function globPattern(pattern: string): RegExp {
  const source = toSlashes(pattern)
    .replace(/^\.\//, '')
    .replace(/\*\*\/|\*\*|\*|\?|\{[^{}]*\}|[^*?{]+|\{/g, (part) => {
      if (part === '**/') return '(?:[^/]+/)*'
      if (part === '**') return '.*'
      if (part === '*') return '[^/]*'
      if (part === '?') return '[^/]'
      if (part.length > 1 && part.startsWith('{')) return `(?:${part.slice(1, -1).split(',').map(quote).join('|')})`
      return quote(part)
    })
  return new RegExp(`^${source}$`)
}

const quote = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
