// The files that an index lists for a package: the simple API in its HTML (PEP 503) and JSON (PEP 691) forms, and folders.
// Knows nothing about which of them is wanted.
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import * as z from 'zod'
import { UserError } from '../../core/types.ts'
import { errorCode } from '../file.ts'
import { type IndexConnection, withoutPassword } from './connection.ts'

export interface IndexFile {
  filename: string
  url: URL
  hash: { algorithm: 'sha256' | 'sha384' | 'sha512'; hex: string } | undefined
  /** Bytes; undefined where the index does not say. */
  size: number | undefined
  yanked: boolean
}

/** From the strongest; older ones are no protection. */
const ALGORITHMS = ['sha512', 'sha384', 'sha256'] as const

const ACCEPT = 'application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1'
const MAX_PAGE_BYTES = 64 * 2 ** 20

/** The files of a page or folder; undefined where there is no such page. Throws UserError where it cannot be had or read. */
export async function readIndexPage(
  address: string,
  connection: IndexConnection,
  signal: AbortSignal | undefined,
): Promise<IndexFile[] | undefined> {
  const url = new URL(address)
  if (url.protocol === 'file:') return readLocal(url)
  connection.check(url)
  const shown = withoutPassword(url)
  let response: Response
  let body: string
  try {
    response = await connection.fetch(shown, {
      headers: { Accept: ACCEPT, ...connection.headers(url) },
      signal: signal ?? null,
    })
    if (Number(response.headers.get('content-length')) > MAX_PAGE_BYTES)
      throw new UserError(`${shown}: the page is larger than ${MAX_PAGE_BYTES} bytes`)
    body = await response.text()
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof UserError) throw error
    throw new IndexUnreachable(`${shown} cannot be reached: ${reasonOf(error)}`)
  }
  if (response.status === 404 || response.status === 410) return undefined
  if (response.status === 401 || response.status === 403)
    throw new UserError(
      `${shown}: the index refused access (${response.status}); check the user and password in its address`,
    )
  if (!response.ok) throw new IndexUnreachable(`${shown}: the index answered ${response.status}`)
  const type = response.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase()
  const base = new URL(response.url || shown)
  if (type === 'application/vnd.pypi.simple.v1+json') return parseJson(body, base)
  if (type === 'text/html' || type === 'application/vnd.pypi.simple.v1+html') return parseHtml(body, base)
  throw new UserError(`${shown}: is no index of packages: it sends ${type ?? 'no content type'}`)
}

/** The network or the server failed: another index, or the cache, may do. */
export class IndexUnreachable extends UserError {}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return cause instanceof Error ? cause.message || (errorCode(cause) ?? cause.name) : String(cause)
}

async function readLocal(url: URL): Promise<IndexFile[] | undefined> {
  const path = fileURLToPath(url)
  try {
    if (!(await stat(path)).isDirectory()) return parseHtml(await readFile(path, 'utf8'), url)
    const names = await readdir(path)
    const folder = pathToFileURL(join(path, '/'))
    if (names.includes('index.html')) return parseHtml(await readFile(join(path, 'index.html'), 'utf8'), folder)
    return names.map((filename) => ({
      filename,
      url: pathToFileURL(join(path, filename)),
      hash: undefined,
      size: undefined,
      yanked: false,
    }))
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorCode(error) ?? '')) return undefined
    throw error
  }
}

const page = z.object({
  files: z.array(
    z.object({
      filename: z.string(),
      url: z.string(),
      hashes: z.record(z.string(), z.string()),
      size: z.int().min(0).optional(),
      yanked: z.union([z.boolean(), z.string()]).optional(),
    }),
  ),
})

function parseJson(text: string, base: URL): IndexFile[] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new UserError(`${base.href}: the index sends what is not JSON`)
  }
  const parsed = page.safeParse(value)
  if (!parsed.success) throw new UserError(`${base.href}: the index sends another form of JSON than PEP 691`)
  return parsed.data.files.flatMap(({ filename, url, hashes, size, yanked }) => {
    const found = linkTarget(url, base)
    return found
      ? [{ filename, url: found, hash: strongest(hashes), size, yanked: yanked !== undefined && yanked !== false }]
      : []
  })
}

async function parseHtml(text: string, base: URL): Promise<IndexFile[]> {
  const { parseHTML } = await import('linkedom')
  const { document } = parseHTML(text)
  const stated = document.querySelector('base[href]')?.getAttribute('href')
  const root = (stated && linkTarget(stated, base)) || base
  return [...document.querySelectorAll('a[href]')].flatMap((link) => {
    const url = linkTarget(link.getAttribute('href')!, root)
    if (!url) return []
    const hashes = Object.fromEntries(new URLSearchParams(url.hash.slice(1)))
    url.hash = ''
    const filename = decodeURIComponent(url.pathname.split('/').at(-1)!)
    const yanked = link.hasAttribute('data-yanked')
    return [{ filename, url, hash: strongest(hashes), size: undefined, yanked }]
  })
}

/** Where a link leads. A page of a server does not lead into the file system. */
function linkTarget(href: string, base: URL): URL | undefined {
  if (!URL.canParse(href, base.href)) return undefined
  const url = new URL(href, base)
  const isFile = url.protocol === 'file:'
  return isFile ? (base.protocol === 'file:' ? url : undefined) : /^https?:$/.test(url.protocol) ? url : undefined
}

function strongest(hashes: Readonly<Record<string, string>>): IndexFile['hash'] {
  const algorithm = ALGORITHMS.find((name) => /^[0-9a-f]+$/i.test(hashes[name] ?? ''))
  return algorithm && { algorithm, hex: hashes[algorithm]!.toLowerCase() }
}
