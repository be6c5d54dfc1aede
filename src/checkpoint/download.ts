// One file over HTTP: resumed where an earlier attempt ended, checked by size and digest, put in place when whole.
// Knows nothing about models or about what the server is, beyond its status codes.
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { UserError } from '../core/types.ts'
import type { Progress } from './cache.ts'
import { describeFileError, errorCode, makeFolder, syncFolder } from './file.ts'

/** `git-sha1` is the id that git gives a file: SHA-1 over `blob <size>\0` and the contents. */
export interface Digest {
  algorithm: 'sha256' | 'sha384' | 'sha512' | 'git-sha1'
  hex: string
}

export interface DownloadOptions {
  url: string
  /** Bytes of the whole file; where nothing is said, what the server says will do. */
  size: number | undefined
  /** Undefined: the caller checks the contents. */
  digest: Digest | undefined
  headers: Readonly<Record<string, string>>
  /** What a refused request (401, 403, 404) means to the user. */
  explain(status: number): UserError
  /** Default: the global one. */
  fetch?: typeof fetch
  progress?: Progress | undefined
  signal?: AbortSignal | undefined
}

const ATTEMPTS = 4
const FIRST_DELAY_MS = 250

/** A failure that another attempt may not have: a broken connection, a busy server, a body that ended early. */
class Transient extends Error {}

const startHash = ({ algorithm }: Digest, size: number): Hash =>
  algorithm === 'git-sha1' ? createHash('sha1').update(`blob ${size}\0`) : createHash(algorithm)

const sizeOf = async (path: string): Promise<number> => {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return 0
    throw error
  }
}

const request = async (options: DownloadOptions, from: number, method = 'GET'): Promise<Response> => {
  const { url, headers, signal } = options
  let response: Response
  try {
    response = await (options.fetch ?? fetch)(url, {
      method,
      headers: { ...headers, 'Accept-Encoding': 'identity', ...(from > 0 ? { Range: `bytes=${from}-` } : {}) },
      signal: signal ?? null,
    })
  } catch (error) {
    signal?.throwIfAborted()
    throw new Transient(`the connection failed: ${String((error as Error).cause ?? error)}`)
  }
  if (response.ok) return response
  await response.body?.cancel()
  if (response.status === 429 || response.status >= 500) throw new Transient(`the server answered ${response.status}`)
  throw options.explain(response.status)
}

/** Where a 206 begins, from `Content-Range: bytes 100-199/200`. */
const rangeStart = (response: Response): number | undefined => {
  const start = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1]
  return start === undefined ? undefined : Number(start)
}

/** Bytes that the server says the file has. */
const statedSize = async (options: DownloadOptions): Promise<number> => {
  const length = (await request(options, 0, 'HEAD')).headers.get('content-length')
  if (length === null || !/^\d+$/.test(length)) throw new UserError(`${options.url}: the server does not say its size`)
  return Number(length)
}

/** Appends what the server sends to the partial file. Resolves when all bytes are there and their digest is right. */
const attempt = async (partial: string, target: string, options: DownloadOptions): Promise<void> => {
  const { digest, progress, signal } = options
  const size = options.size ?? (await statedSize(options))
  const file = basename(target)
  let done = await sizeOf(partial)
  if (done > size) {
    await rm(partial)
    done = 0
  }
  let hash = digest && startHash(digest, size)
  if (hash && done > 0) for await (const piece of createReadStream(partial)) hash.update(piece as Uint8Array)
  if (done < size || size === 0) {
    const response = await request(options, done)
    if (done > 0 && (response.status !== 206 || rangeStart(response) !== done)) {
      // The server ignored the range and sends the file from its start.
      if (response.status === 206) throw new Transient('the server sent another range than the one asked for')
      done = 0
      hash = digest && startHash(digest, size)
    }
    const handle = await open(partial, done > 0 ? 'a' : 'w')
    try {
      progress?.(done, size, file)
      const body = response.body
      if (body !== null) {
        for await (const piece of body as unknown as AsyncIterable<Uint8Array>) {
          done += piece.byteLength
          if (done > size) break
          await handle.writeFile(piece)
          hash?.update(piece)
          progress?.(done, size, file)
        }
      }
    } catch (error) {
      signal?.throwIfAborted()
      // Only the file system's errors carry a code themselves; a broken connection is a TypeError with a cause.
      if (errorCode(error) !== undefined) throw error
      throw new Transient(`the connection broke after ${done} of ${size} bytes`)
    } finally {
      await handle.sync()
      await handle.close()
    }
    if (done < size) throw new Transient(`the connection ended after ${done} of ${size} bytes`)
  }
  if (done > size) {
    await rm(partial)
    throw new Transient(`the server sent more than the ${size} bytes of the file`)
  }
  const found = hash?.digest('hex')
  if (digest && found !== digest.hex) {
    await rm(partial)
    throw new Transient(`its ${digest.algorithm} is ${found}, expected ${digest.hex}`)
  }
}

/**
 * Downloads to `target` by way of `<target>.partial`, which a later call continues. `target` appears only when size and
 * digest are right. Broken connections, busy servers and wrong contents are tried again, four times in all.
 * Throws UserError when it fails, and the signal's reason when it is aborted.
 */
export const downloadFile = async (target: string, options: DownloadOptions): Promise<void> => {
  const partial = `${target}.partial`
  await makeFolder(dirname(target))
  for (let n = 1; ; n++) {
    options.signal?.throwIfAborted()
    try {
      await attempt(partial, target, options)
      break
    } catch (error) {
      const problem = describeFileError(error, target)
      if (problem !== undefined) throw new UserError(problem)
      if (!(error instanceof Transient)) throw error
      if (n === ATTEMPTS)
        throw new UserError(`${options.url}: download failed ${ATTEMPTS} times, the last time because ${error.message}`)
    }
    // The wait rejects only when it is aborted; the next turn of the loop throws the signal's reason.
    await sleep(FIRST_DELAY_MS * 2 ** (n - 1), undefined, { signal: options.signal }).catch(() => undefined)
  }
  await rename(partial, target)
  await syncFolder(dirname(target))
}
