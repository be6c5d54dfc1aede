// Files: random access with checked ranges, bounded text and JSON, atomic writes. Knows nothing about checkpoint formats.
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, realpath, rename, rm, rmdir, stat } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'
import { UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'

/** A file opened for reading at any offset. */
export interface RandomAccessFile {
  path: string
  size: number
  /**
   * Fills `target` from `offset`, once closed by opening the file for as long as that takes. Throws UserError where the file
   * ends before that, or has another size by then.
   */
  read(offset: number, target: Uint8Array): Promise<void>
  close(): Promise<void>
}

/** The operating system accepts at most 2^31 - 1 bytes in one read or write. */
const MAX_TRANSFER = 2 ** 30

export const errorCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined

/** What a person can correct, by the code of the system's error. */
const fileProblems: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EDQUOT: 'the disk quota is used up',
  EEXIST: 'exists already',
  EFBIG: 'the file would become larger than the disk takes',
  EIO: 'the disk reports an error',
  EISDIR: 'it is a folder',
  ELOOP: 'links lead in a circle',
  EMFILE: 'too many files are open',
  ENAMETOOLONG: 'the name is too long',
  ENFILE: 'too many files are open',
  ENODEV: 'there is no such device',
  ENOENT: 'no such file or folder',
  ENOSPC: 'no space left on the disk',
  ENOTDIR: 'a part of the path is a file, not a folder',
  ENOTEMPTY: 'the folder is not empty',
  EPERM: 'not permitted',
  EROFS: 'the disk is read-only',
  ETXTBSY: 'the file is in use',
  EXDEV: 'it lies on another disk',
}

/**
 * An error of the file system in a sentence that names the path; undefined for an error of another kind.
 * `path`: that of the operation, for errors that do not carry one.
 */
export function describeFileError(error: unknown, path?: string): string | undefined {
  const problem = fileProblems[errorCode(error) ?? '']
  if (problem === undefined) return undefined
  const { syscall = '', path: own, dest } = error as NodeJS.ErrnoException & { dest?: string }
  if (syscall.startsWith('spawn') || syscall === 'connect' || syscall === 'listen') return undefined
  const named = dest ?? own ?? path
  return named === undefined ? problem : `${finalName(named)}: ${problem}`
}

const openError = (path: string, error: unknown): Error => {
  const problem = fileProblems[errorCode(error) ?? '']
  if (problem !== undefined) return new UserError(`${path}: cannot be read: ${problem}`)
  return error instanceof Error ? error : new Error(String(error))
}

const openRegular = async (path: string): Promise<{ handle: FileHandle; size: number }> => {
  let handle: FileHandle
  try {
    // A pipe is not waited for.
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  } catch (error) {
    throw openError(path, error)
  }
  try {
    const status = await handle.stat()
    if (!status.isFile()) throw new UserError(`${path}: cannot be read: it is not a regular file`)
    return { handle, size: status.size }
  } catch (error) {
    await handle.close()
    throw error
  }
}

const fill = async (path: string, handle: FileHandle, offset: number, target: Uint8Array): Promise<void> => {
  for (let done = 0; done < target.byteLength; ) {
    const length = Math.min(MAX_TRANSFER, target.byteLength - done)
    const { bytesRead } = await handle.read(target, done, length, offset + done)
    if (bytesRead === 0) throw new UserError(`${path}: the file became shorter while it was read`)
    done += bytesRead
  }
}

/** Opens a file for reading. Throws UserError when it is missing, unreadable or not a regular file. */
export const openFile = async (path: string): Promise<RandomAccessFile> => {
  const { handle, size } = await openRegular(path)
  let closed = false
  return {
    path,
    size,
    read: async (offset, target) => {
      if (offset < 0 || offset + target.byteLength > size)
        throw new UserError(
          `${path}: bytes ${offset} to ${offset + target.byteLength} are outside the file of ${size} bytes`,
        )
      if (!closed) return fill(path, handle, offset, target)
      const again = await openRegular(path)
      try {
        if (again.size !== size)
          throw new UserError(`${path}: has ${again.size} bytes, had ${size} when the model was opened; load it again`)
        await fill(path, again.handle, offset, target)
      } finally {
        await again.handle.close()
      }
    },
    close: () => {
      closed = true
      return handle.close()
    },
  }
}

/** Largest text file (tokenizer.json, config.json, an index) that is read into memory. */
const MAX_TEXT_BYTES = 200 * 2 ** 20

/** Reads UTF-8 text. Throws UserError when the file is missing or larger than `limit` bytes (default 200 MB). */
export const readText = async (path: string, limit = MAX_TEXT_BYTES): Promise<string> => {
  const file = await openFile(path)
  try {
    if (file.size > limit)
      throw new UserError(`${path}: ${file.size} bytes are more than the ${limit} that are accepted`)
    const bytes = new Uint8Array(file.size)
    await file.read(0, bytes)
    return new TextDecoder().decode(bytes)
  } finally {
    await file.close()
  }
}

/** Reads a JSON object. Throws UserError when the file is missing, not JSON or not an object. */
export const readJsonObject = async (path: string): Promise<Record<string, unknown>> => {
  const text = await readText(path)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new UserError(`${path}: not valid JSON: ${(error as Error).message}`)
  }
  if (!isRecord(value)) throw new UserError(`${path}: expected a JSON object`)
  return value
}

/**
 * Refuses a file of a model's folder that is a link out of it: it could be any file of this machine, and a chat template is
 * shown to others. Links into the blobs of a Hub cache are how that stores a model. Throws UserError.
 */
const checkEnclosed = async (path: string): Promise<void> => {
  let target: string
  try {
    if (!(await lstat(path)).isSymbolicLink()) return
    target = await realpath(path)
  } catch (error) {
    throw openError(path, error)
  }
  const folder = await realpath(dirname(path))
  const blobs = join(dirname(dirname(folder)), 'blobs')
  const inCache = basename(dirname(folder)) === 'snapshots' && dirname(target) === blobs
  if (inCache || target.startsWith(folder + sep)) return
  throw new UserError(
    `${path}: is a link to a file outside of the model's folder; put a copy of that file in its place`,
  )
}

/** `readText` for a file of a model's folder, which may come from anyone. */
export const readModelText = async (path: string): Promise<string> => {
  await checkEnclosed(path)
  return readText(path)
}

/** `readJsonObject` for a file of a model's folder, which may come from anyone. */
export const readModelJson = async (path: string): Promise<Record<string, unknown>> => {
  await checkEnclosed(path)
  return readJsonObject(path)
}

export const exists = async (path: string): Promise<boolean> => {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return false
    throw error
  }
}

/** Removes a folder that holds nothing: one that was made for work that then could not begin. */
export async function removeIfEmpty(path: string): Promise<void> {
  await rmdir(path).catch((error: unknown) => {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(errorCode(error) ?? '')) throw error
  })
}

/**
 * Makes a folder and those above it, and returns whether it was not there before. Step by step: the recursion of Node's own
 * `mkdir` hides why it failed on a read-only disk. Throws UserError where a file is in the way.
 */
export const makeFolder = async (path: string): Promise<boolean> => {
  const parent = dirname(path)
  if (parent !== path && !(await exists(parent))) await makeFolder(parent)
  try {
    await mkdir(path)
    return true
  } catch (error) {
    const found = await stat(path).catch(() => undefined)
    if (found?.isDirectory()) return false
    throw found ? new UserError(`${path}: is a file; a folder is needed`) : error
  }
}

/** A name beside `path` that no other process uses; hidden, so that nothing takes it for a finished file. */
export const temporaryName = (path: string): string =>
  join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)

/** The path that a temporary name stands for, in it or as a whole; others as they are. */
const finalName = (path: string): string => path.replace(/(^|[\\/])\.([^\\/]+)\.[0-9a-f]{12}\.tmp/g, '$1$2')

/** Makes a finished rename survive a power cut. Where folders cannot be synced (Windows) the rename stands as it is. */
export const syncFolder = async (folder: string): Promise<void> => {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Appends bytes to a file that is being written. */
export type ByteSink = (bytes: Uint8Array) => Promise<void>

/** Writes a file so that `path` holds either what it held before or everything that `write` sent, never a part. */
export const writeAtomically = async (path: string, write: (sink: ByteSink) => Promise<void>): Promise<void> => {
  const temporary = temporaryName(path)
  try {
    const handle = await open(temporary, 'wx')
    try {
      await write(async (bytes) => {
        for (let done = 0; done < bytes.byteLength; ) {
          const { bytesWritten } = await handle.write(bytes, done, Math.min(MAX_TRANSFER, bytes.byteLength - done))
          done += bytesWritten
        }
      })
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    const problem = describeFileError(error, path)
    throw problem === undefined ? error : new UserError(problem)
  }
  await syncFolder(dirname(path))
}

export const writeTextAtomically = (path: string, text: string): Promise<void> =>
  writeAtomically(path, (sink) => sink(new TextEncoder().encode(text)))
