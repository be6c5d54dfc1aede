// The folder of a training run: begun once, continued on request, used by one process at a time.
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { exists, makeFolder, removeIfEmpty, writeTextAtomically } from '../checkpoint/file.ts'
import { lockFolder } from '../checkpoint/lock.ts'
import { UserError } from '../core/types.ts'

export interface RunFolderOptions {
  /** Continue the run in the folder. Default false. */
  resume?: boolean
  /** Delete the run that the folder holds, and begin anew. Default false. */
  force?: boolean
}

const recipeName = 'recipe.yaml'
const recipeHead = '# Written by unmask: all settings of the run in this folder.\n'

/** What a run writes into its folder. Metrics and answers of a run without checkpoints may be written anew. */
const outputs = [
  ...[recipeName, 'checkpoints', 'model', 'adapter', 'report', 'from-random'],
  ...['model.json', 'base.json', 'report.html'],
]
const restartable = ['metrics.jsonl', 'self-generated.jsonl', 'reference', 'answers.jsonl']

/** The recipe that a run keeps in its folder. */
export const runRecipePath = (folder: string): string => join(folder, recipeName)

/** The recipe of the run that is to be resumed. Throws UserError where the folder holds none. */
export async function findRunRecipe(folder: string): Promise<string> {
  const path = runRecipePath(folder)
  if (await exists(path)) return path
  const reason = (await exists(folder)) ? `it has no ${recipeName}` : 'no such folder'
  throw new UserError(
    `${folder}: no run to resume: ${reason}. Check the name, or leave out --resume to start a new run.`,
  )
}

/**
 * Makes the folder of a run, locks it while `body` runs, and removes it again if it was made here and nothing has been written to it.
 *
 * @throws UserError where another process uses the folder, where there is nothing to resume, and where a run would be
 * overwritten.
 */
export async function withRunFolder<T>(
  folder: string,
  { resume = false, force = false }: RunFolderOptions,
  body: () => Promise<T>,
): Promise<T> {
  if (resume && force) throw new UserError('resume and force exclude each other: continue the run, or delete it')
  if (resume) await findRunRecipe(folder)
  const made = await makeFolder(folder)
  const unlock = await lockFolder(folder)
  try {
    if (force && (await isRun(folder)))
      for (const name of [...outputs, ...restartable]) await rm(join(folder, name), { recursive: true, force: true })
    if (!resume) await checkUnused(folder)
    return await body()
  } finally {
    await unlock()
    if (made) await removeIfEmpty(folder)
  }
}

/** Throws where a new run would replace something. A run that has saved nothing yet may be started anew. */
async function checkUnused(folder: string): Promise<void> {
  const found = await foundOutputs(folder)
  if (found.length === 0 || (!found.some((name) => name !== recipeName) && (await hasOwnRecipe(folder)))) return
  throw new UserError(
    (await isRun(folder))
      ? `${folder} holds a run already; resume it with --resume, delete it with --force, or name another folder`
      : `${folder} holds ${found.join(', ')}, which this run would replace: name another folder`,
  )
}

async function foundOutputs(folder: string): Promise<string[]> {
  const found: string[] = []
  for (const name of outputs) if (await exists(join(folder, name))) found.push(name)
  return found
}

const isRun = async (folder: string): Promise<boolean> =>
  (await exists(join(folder, 'checkpoints'))) || (await hasOwnRecipe(folder))

/** Whether the folder's recipe was written by `writeRunRecipe`, not by a person. */
async function hasOwnRecipe(folder: string): Promise<boolean> {
  const path = runRecipePath(folder)
  return (await exists(path)) && (await readFile(path, 'utf8')).startsWith(recipeHead)
}

/** Writes the merged recipe, as YAML, beside the run. */
export const writeRunRecipe = (folder: string, yaml: string): Promise<void> =>
  writeTextAtomically(runRecipePath(folder), recipeHead + yaml)
