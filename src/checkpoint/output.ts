// Whether a path may be written to: nothing that exists is replaced unasked, and never what is being read.
// Knows nothing about what is written.
import { lstat, readdir, realpath, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { UserError } from '../core/types.ts'
import { errorCode } from './file.ts'

export interface OutputRules {
  /** Files and folders that are read to make it. Those that do not exist here (a name on the Hub) do not matter. */
  inputs: readonly string[]
  /** Whether what exists may be replaced; an input never is. Default false. */
  force?: boolean
}

/**
 * Checks that a file or folder may be written: `path` must not be an input, lie in one or hold one (links are followed),
 * and it must not exist, unless it is an empty folder or `force` is set. Throws UserError otherwise. Writes nothing.
 */
export async function claimOutput(path: string, { inputs, force = false }: OutputRules): Promise<void> {
  const output = await locate(path)
  for (const input of inputs)
    for (const part of await withLinks(input)) {
      const { id, parents } = await locate(part)
      if (id === undefined) continue
      if (id === output.id) throw new UserError(`${path}: is an input (${input}); choose another output`)
      if (output.parents.includes(id))
        throw new UserError(`${path}: lies in an input (${input}); choose an output outside it`)
      if (output.id !== undefined && parents.includes(output.id))
        throw new UserError(`${path}: holds an input (${part}); choose an output of its own`)
    }
  if (!force && (await occupied(path)))
    throw new UserError(`${path}: exists already; choose another output, or replace it with --force`)
}

/** A path and those that links directly in it lead to, as in a snapshot of the Hub's cache. */
async function withLinks(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true })
    return [path, ...entries.filter((entry) => entry.isSymbolicLink()).map(({ name }) => join(path, name))]
  } catch {
    // Not a folder, or not readable: whoever reads it says so.
    return [path]
  }
}

interface Place {
  /** What identifies it on this machine, whatever its name; undefined where it does not exist. */
  id: string | undefined
  /** Those of the folders that it lies in. */
  parents: string[]
}

async function locate(path: string): Promise<Place> {
  const id = await identity(path)
  const real = id === undefined ? resolve(path) : await realpath(path)
  const parent = dirname(real)
  if (parent === real) return { id, parents: [] }
  const above = await locate(parent)
  return { id, parents: above.id === undefined ? above.parents : [above.id, ...above.parents] }
}

async function identity(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path, { bigint: true })
    return `${dev}:${ino}`
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

async function occupied(path: string): Promise<boolean> {
  try {
    // A link counts as itself: one that leads nowhere is something too.
    await lstat(path)
  } catch (error) {
    if (isMissing(error)) return false
    throw error
  }
  try {
    return (await readdir(path)).length > 0
  } catch (error) {
    if (errorCode(error) === 'ENOTDIR' || isMissing(error)) return true
    throw error
  }
}

const isMissing = (error: unknown): boolean => ['ENOENT', 'ENOTDIR'].includes(errorCode(error) ?? '')
