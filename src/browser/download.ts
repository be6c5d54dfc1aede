// Brings the files of a model into memory: from the store where they are kept, else from the network, each checked against its
// hash. What has come is kept at once, so that a download that stops goes on there.
import { LoadError, megabytes } from './errors.ts'
import { type Manifest, type ManifestFile, manifestFile, parseManifest } from './manifest.ts'
import { openStore, type Store, sha256 } from './store.ts'

export type Progress =
  /** Bytes that are there, of all. */
  | { phase: 'download'; loaded: number; total: number }
  /** Another tab downloads the same model; when it is done, or closed, this one goes on. */
  | { phase: 'wait' }
  /** The weights are handed to the runtime. */
  | { phase: 'start' }

export interface DownloadOptions {
  /** Keep the files in the browser. Default true. */
  keep?: boolean | undefined
  /** Ask the server whether there is a new version where the model is kept. Default true; without a network the kept one is taken. */
  update?: boolean | undefined
  signal?: AbortSignal | undefined
  onProgress?: ((progress: Progress) => void) | undefined
}

export interface Downloaded {
  manifest: Manifest
  files: Map<string, Uint8Array>
}

/** The files of the folder at `url`, which ends with a slash. Throws LoadError, or the signal's reason. */
export async function download(url: string, options: DownloadOptions = {}): Promise<Downloaded> {
  if (typeof crypto.subtle === 'undefined')
    throw new LoadError('support', 'The page must come over https, or from localhost: else files cannot be checked.')
  const { keep = true, signal, onProgress } = options
  const store = keep ? await openStore() : undefined
  if (!store) return bring(url, undefined, options)
  const lock = `unmask ${url}`
  const free = await navigator.locks.request(lock, { ifAvailable: true }, async (held) =>
    held === null ? undefined : await bring(url, store, options),
  )
  if (free) return free
  onProgress?.({ phase: 'wait' })
  return navigator.locks.request(lock, signal ? { signal } : {}, () => bring(url, store, options))
}

async function bring(url: string, store: Store | undefined, options: DownloadOptions): Promise<Downloaded> {
  const { signal, onProgress } = options
  const text = await manifestOf(url, store, options)
  const manifest = parseManifest(text, url + manifestFile)
  const total = manifest.files.reduce((sum, { bytes }) => sum + bytes, 0)
  const files = new Map<string, Uint8Array>()
  const missing: ManifestFile[] = []
  let loaded = 0
  for (const file of manifest.files) {
    const kept = await store?.get(file)
    if (kept) {
      files.set(file.path, kept)
      loaded += kept.length
    } else missing.push(file)
  }
  await store?.checkRoom(missing.reduce((sum, { bytes }) => sum + bytes, 0))
  onProgress?.({ phase: 'download', loaded, total })
  await fetchAll(missing, async (file) => {
    let come = 0
    const bytes = await fetchFile(url, file, signal, (more) => {
      loaded += more - come
      come = more
      onProgress?.({ phase: 'download', loaded, total })
    })
    await store?.put(file, bytes)
    files.set(file.path, bytes)
  })
  if (missing.length > 0 || (await store?.manifest(url)) !== text)
    await store?.complete(url, manifest.name, text, manifest.files)
  return { manifest, files }
}

/** Files that are fetched at the same time. */
const AT_A_TIME = 4

/** Fetches files in their order. Where one fails those that were begun are finished, so that they are kept, and no more begun. */
async function fetchAll(
  files: readonly ManifestFile[],
  fetchOne: (file: ManifestFile) => Promise<void>,
): Promise<void> {
  const left = [...files].reverse()
  const problems: unknown[] = []
  const work = async () => {
    for (let file = left.pop(); file && problems.length === 0; file = left.pop())
      await fetchOne(file).catch((error) => problems.push(error))
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, work))
  if (problems.length > 0) throw problems[0]
}

/** The manifest of the server or, where that cannot be asked or need not be, the one that is kept. */
async function manifestOf(
  url: string,
  store: Store | undefined,
  { update = true, signal }: DownloadOptions,
): Promise<string> {
  const kept = await store?.manifest(url)
  if (kept !== undefined && !update) return kept
  try {
    const response = await fetch(url + manifestFile, { cache: 'no-cache', ...(signal ? { signal } : {}) })
    if (!response.ok) throw new Error(`the server answered ${response.status}`)
    return await response.text()
  } catch (error) {
    signal?.throwIfAborted()
    if (kept !== undefined) return kept
    throw new LoadError(
      'network',
      `${url}${manifestFile} cannot be read (${messageOf(error)}). Is it a folder that unmask export --to web wrote?`,
    )
  }
}

async function fetchFile(
  url: string,
  { path, bytes: size, sha256: hash }: ManifestFile,
  signal: AbortSignal | undefined,
  onProgress: (bytes: number) => void,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(size)
  let at = 0
  try {
    const response = await fetch(url + path, { cache: 'no-cache', ...(signal ? { signal } : {}) })
    if (!response.ok || !response.body) throw new Error(`the server answered ${response.status}`)
    const reader = response.body.getReader()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      if (at + value.length > size) {
        await reader.cancel()
        throw corrupt(path, `it has more than ${size} bytes`)
      }
      bytes.set(value, at)
      at += value.length
      onProgress(at)
    }
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof LoadError) throw error
    throw stopped(path, at, size, messageOf(error))
  }
  if (at < size) throw stopped(path, at, size, 'the connection was closed')
  if ((await sha256(bytes)) !== hash) throw corrupt(path, 'its hash is another')
  return bytes
}

const stopped = (path: string, at: number, size: number, why: string): LoadError =>
  new LoadError(
    'network',
    `The download stopped at ${megabytes(at)} of ${megabytes(size)} of ${path} (${why}). The files that came whole are kept: load again to go on.`,
  )

const corrupt = (path: string, why: string): LoadError =>
  new LoadError(
    'corrupt',
    `${path} is not the file that the model was exported with: ${why}. It was not kept: load again to fetch it anew, and if that does not help, export the model again.`,
  )

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
