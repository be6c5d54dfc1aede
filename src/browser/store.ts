// The files of models, kept in the browser by what they hold: a file is stored under its hash, so a new version of a model
// fetches only what changed, and two models share what is the same.
import { LoadError, megabytes } from './errors.ts'
import type { ManifestFile } from './manifest.ts'

/** Files of a model that is kept, by the address of its folder. */
export interface StoredModel {
  url: string
  name: string
  /** Bytes of its files. */
  bytes: number
}

interface Entry extends StoredModel {
  manifest: string
  hashes: string[]
}

export interface Store {
  /** A file, if it is there as a whole and unchanged. */
  get(file: ManifestFile): Promise<Uint8Array | undefined>
  /** Throws LoadError where there is no room. */
  put(file: ManifestFile, bytes: Uint8Array): Promise<void>
  /** The text of the manifest that was stored last for the folder. */
  manifest(url: string): Promise<string | undefined>
  /** Says that a model is complete; files that no model has any more are removed. */
  complete(url: string, name: string, manifest: string, files: readonly ManifestFile[]): Promise<void>
  /** Throws LoadError where `bytes` more do not fit. */
  checkRoom(bytes: number): Promise<void>
  models(): Promise<StoredModel[]>
  /** Removes a model, and the files that no other has. */
  remove(url: string): Promise<void>
}

const CACHE = 'unmask-models'
/** Addresses that no request goes to: only the cache knows them. */
const FILES = 'https://unmask.invalid/files/'
const MODELS = 'https://unmask.invalid/models/'

/** The SHA-256 hash of bytes in hexadecimal. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>))
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** The store of this origin; undefined where the browser has none (pages that are not secure, some private windows). */
export async function openStore(): Promise<Store | undefined> {
  if (typeof caches === 'undefined') return undefined
  let cache: Cache
  try {
    cache = await caches.open(CACHE)
  } catch {
    return undefined
  }
  const fileKey = (hash: string) => FILES + hash
  const modelKey = (url: string) => MODELS + encodeURIComponent(url)

  async function entries(): Promise<Entry[]> {
    const keys = (await cache.keys()).filter(({ url }) => url.startsWith(MODELS))
    const found = await Promise.all(keys.map(async (key) => (await cache.match(key))?.json() as Promise<Entry>))
    return found.filter((entry) => entry !== undefined)
  }

  /** Removes files that no model has. */
  async function sweep(): Promise<void> {
    const kept = new Set((await entries()).flatMap(({ hashes }) => hashes))
    for (const key of await cache.keys())
      if (key.url.startsWith(FILES) && !kept.has(key.url.slice(FILES.length))) await cache.delete(key)
  }

  async function noRoom(bytes: number): Promise<LoadError> {
    const { quota = 0, usage = 0 } = await navigator.storage.estimate()
    const others = await entries()
    const kept =
      others.length === 0
        ? ''
        : ` Kept here: ${others.map((one) => `${one.name} (${megabytes(one.bytes)})`).join(', ')}.`
    return new LoadError(
      'storage',
      `There is no room to keep the model: it needs ${megabytes(bytes)}, this browser gives this site ` +
        `${megabytes(Math.max(0, quota - usage))} more.${kept} Free some space, remove a model, or load it without keeping it.`,
    )
  }

  return {
    async get(file) {
      const response = await cache.match(fileKey(file.sha256))
      if (!response) return undefined
      const bytes = new Uint8Array(await response.arrayBuffer())
      if (bytes.length === file.bytes && (await sha256(bytes)) === file.sha256) return bytes
      await cache.delete(fileKey(file.sha256))
      return undefined
    },
    async put({ sha256, bytes: size }, bytes) {
      try {
        await cache.put(fileKey(sha256), new Response(bytes as Uint8Array<ArrayBuffer>))
      } catch (error) {
        if (error instanceof DOMException && error.name === 'QuotaExceededError') throw await noRoom(size)
        throw error
      }
    },
    async manifest(url) {
      const entry = (await (await cache.match(modelKey(url)))?.json()) as Entry | undefined
      return entry?.manifest
    },
    async complete(url, name, manifest, files) {
      const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
      const entry: Entry = { url, name, bytes, manifest, hashes: files.map((file) => file.sha256) }
      await cache.put(modelKey(url), new Response(JSON.stringify(entry)))
      await sweep()
    },
    async checkRoom(bytes) {
      const { quota, usage = 0 } = await navigator.storage.estimate()
      if (quota !== undefined && bytes > quota - usage) throw await noRoom(bytes)
    },
    models: async () => (await entries()).map(({ url, name, bytes }) => ({ url, name, bytes })),
    async remove(url) {
      await cache.delete(modelKey(url))
      await sweep()
    },
  }
}
