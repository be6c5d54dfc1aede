// A lock on a folder against a second process: a file that names who holds it. Knows nothing about what is locked.
import { open, readFile, rename, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { errorCode, temporaryName } from './file.ts'

interface Holder {
  pid: number
  host: string
  /** When the process started, where the system reports it (Linux): a number that distinguishes it from a later process. */
  process_start: string | null
}

const lockName = '.lock'

/** Locks that this process holds. */
const held = new Set<string>()

/**
 * Takes the lock of an existing folder, and returns the function that gives it back. A lock whose process has died on this
 * machine is taken over; one of another machine is not, since nobody here can know.
 *
 * @throws UserError where another process, or this one, holds it.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, lockName)
  const own: Holder = { pid: process.pid, host: hostname(), process_start: await processStart(process.pid) }
  const text = `${JSON.stringify(own)}\n`
  while (!(await createExclusively(path, text))) await removeStale(folder, path)
  held.add(path)
  return async () => {
    held.delete(path)
    await rm(path, { force: true })
  }
}

async function createExclusively(path: string, text: string): Promise<boolean> {
  let handle: Awaited<ReturnType<typeof open>>
  try {
    handle = await open(path, 'wx')
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    throw error
  }
  try {
    await handle.writeFile(text)
  } finally {
    await handle.close()
  }
  return true
}

/** Removes the lock of a process that has died. Throws UserError where the lock is held. */
async function removeStale(folder: string, path: string): Promise<void> {
  const text = await readLock(path)
  if (text === undefined) return
  const holder = parseHolder(text)
  const free = holder !== undefined && holder.host === hostname() && !(await isRunning(holder, path))
  if (!free) {
    const who = holder ? `process ${holder.pid} on ${holder.host}` : 'another process'
    throw new UserError(`${folder}: in use by ${who}. If that process no longer runs, delete ${path}.`)
  }
  // Another process may have taken the stale lock over since it was read: look at what was moved away.
  const moved = temporaryName(path)
  try {
    await rename(path, moved)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return
    throw error
  }
  if ((await readLock(moved)) === text) await rm(moved, { force: true })
  else await rename(moved, path)
}

async function readLock(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function parseHolder(text: string): Holder | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // Half-written, or no lock of ours: nobody is known to hold it, and it is not taken over.
    return undefined
  }
  return isRecord(value) && Number.isSafeInteger(value.pid) && typeof value.host === 'string'
    ? (value as unknown as Holder)
    : undefined
}

async function isRunning({ pid, process_start: start }: Holder, path: string): Promise<boolean> {
  // After a restart of a container a process often has the number of the one before it.
  if (pid === process.pid) return held.has(path)
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: it runs for another user.
    if (errorCode(error) !== 'EPERM') return false
  }
  const now = await processStart(pid)
  return now === null || start === null || now === start
}

/** The start time of a process as Linux counts it, null where there is no such file. */
async function processStart(pid: number): Promise<string | null> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null)
  // The name of the program, in brackets, may hold spaces; the start time is the 20th field behind it.
  return text?.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? null
}
