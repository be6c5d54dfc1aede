// The models on this machine: fetched ones in the cache, and those of runs. Lists and removes them.
import { lstat, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError } from '../core/types.ts'
import { cacheFolder } from './cache.ts'
import { lockFolder } from './lock.ts'
import { listRuns, tinyModel } from './names.ts'
import { fetchedVersions } from './pypi/pull.ts'

export interface StoredModel {
  /** As other commands take it. */
  name: string
  kind: 'package' | 'hub' | 'pypi' | 'run'
  /** What is removed with it. */
  path: string
  /** Bytes on the disk of all that is in `path`. */
  bytes: number
  /** When it was written, in milliseconds. */
  modified: number
}

/** The model of the package, fetched models by name, then runs, the newest first. */
export async function listModels(): Promise<StoredModel[]> {
  const models: StoredModel[] = [{ name: 'tiny', kind: 'package', path: tinyModel, ...(await measure(tinyModel)) }]
  const hub = join(cacheFolder(), 'hub')
  for (const entry of await namesIn(hub)) {
    const path = join(hub, entry)
    for (const name of await hubNames(path, entry.replace('--', '/')))
      models.push({ name, kind: 'hub', path, ...(await measure(path)) })
  }
  for (const { name, version, folder } of await fetchedVersions())
    models.push({ name: `pypi:${name}==${version.text}`, kind: 'pypi', path: folder, ...(await measure(folder)) })
  for (const { path, model, modified } of await listRuns())
    models.push({ name: model, kind: 'run', path, bytes: (await measure(path)).bytes, modified })
  return models
}

/**
 * Removes a model that `listModels` lists, by its name or, for a run, its folder. All revisions of a repository go together.
 * Throws UserError where there is none, where it is the package's own, or where a run is in use.
 */
export async function removeModel({ name, kind, path }: StoredModel): Promise<void> {
  if (kind === 'package') throw new UserError(`${name}: comes with unmask; it cannot be removed`)
  const unlock = kind === 'run' ? await lockFolder(path) : undefined
  try {
    await rm(path, { recursive: true })
  } finally {
    await unlock?.()
  }
}

/** The listed model that `name` means. Throws UserError where there is none. */
export async function findModel(name: string): Promise<StoredModel> {
  const wanted = name.replace(/\/+$/, '')
  const models = await listModels()
  const found = models.find(
    (model) => wanted === model.name || wanted === model.path || `${wanted}@main` === model.name,
  )
  if (found) return found
  throw new UserError(`${name}: is not among the models that \`unmask list\` shows`)
}

/** The branches and tags under which a repository was fetched. */
async function hubNames(folder: string, repository: string): Promise<string[]> {
  const revisions = await namesIn(join(folder, 'refs'))
  const complete: string[] = []
  for (const revision of revisions) {
    const commit = (await readFile(join(folder, 'refs', revision), 'utf8')).trim()
    if ((await namesIn(join(folder, commit))).length > 0) complete.push(`${repository}@${decodeURIComponent(revision)}`)
  }
  return complete.length > 0 ? complete : [repository]
}

const namesIn = async (folder: string): Promise<string[]> =>
  (await readdir(folder).catch(() => [])).filter((name) => !name.startsWith('.')).sort()

async function measure(folder: string): Promise<{ bytes: number; modified: number }> {
  const names = await readdir(folder, { recursive: true })
  const sizes = await Promise.all(names.map(async (name) => (await lstat(join(folder, name))).size))
  return { bytes: sizes.reduce((sum, size) => sum + size, 0), modified: (await stat(folder)).mtimeMs }
}
