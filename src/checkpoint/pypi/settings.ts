// Where pip looks for packages: its configuration files and environment, read as pip reads them, without pip.
import { existsSync } from 'node:fs'
import { devNull, homedir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { UserError } from '../../core/types.ts'
import { readText } from '../file.ts'

export interface IndexSettings {
  /** Addresses of simple indexes (PEP 503), without a slash at their end; may hold a user and a password. */
  indexes: string[]
  /** Folders or pages that list files. */
  findLinks: string[]
  /** File of certificates to trust. */
  certificates: string | undefined
  proxy: string | undefined
  /** Hosts, with or without a port, that need no valid certificate and no TLS. */
  trustedHosts: string[]
}

const DEFAULT_INDEX = 'https://pypi.org/simple'

interface Place {
  env: NodeJS.ProcessEnv
  platform: NodeJS.Platform
  home: string
}

/** Reads the settings of `pip download`. Throws UserError where the file that PIP_CONFIG_FILE names cannot be read. */
export async function readIndexSettings(place: Partial<Place> = {}): Promise<IndexSettings> {
  const { env = process.env, platform = process.platform, home = homedir() } = place
  const options = new Map<string, string>()
  // pip's order: for each section all files, the later ones win; then the section of the command; then the environment.
  const files: Map<string, Map<string, string>>[] = []
  for (const file of configFiles({ env, platform, home })) files.push(parseIni(await readText(file, 1 << 20), file))
  for (const section of ['global', 'download'])
    for (const file of files) for (const [key, value] of file.get(section) ?? []) options.set(key, value)
  for (const [name, value] of Object.entries(env))
    if (/^PIP_/i.test(name) && value !== undefined && value !== '') options.set(normalKey(name.slice(4)), value)

  const words = (key: string): string[] => options.get(key)?.split(/\s+/).filter(Boolean) ?? []
  const certificates = options.get('cert') ?? env.REQUESTS_CA_BUNDLE ?? env.CURL_CA_BUNDLE
  return {
    indexes: isTrue(options.get('no-index'))
      ? []
      : [options.get('index-url') ?? DEFAULT_INDEX, ...words('extra-index-url')].map(toUrl),
    findLinks: words('find-links').map(toUrl),
    certificates: certificates || undefined,
    proxy: options.get('proxy'),
    trustedHosts: words('trusted-host'),
  }
}

const normalKey = (key: string): string => key.trim().toLowerCase().replaceAll('_', '-').replace(/^--/, '')

const isTrue = (value: string | undefined): boolean => /^(1|y|yes|t|true|on)$/i.test(value ?? '')

/** Without a scheme it is a path. */
function toUrl(text: string): string {
  const url = /^[a-z][a-z0-9+.-]+:\/\//i.test(text) ? text : pathToFileURL(resolve(text)).href
  return url.replace(/\/+$/, '')
}

/** The files that exist, from the weakest to the strongest. */
function configFiles({ env, platform, home }: Place): string[] {
  const named = env.PIP_CONFIG_FILE
  if (named === devNull) return []
  const name = platform === 'win32' ? 'pip.ini' : 'pip.conf'
  const files = [...globalFolders(env, platform).map((folder) => join(folder, name))]
  if (platform !== 'win32') files.push('/etc/pip.conf')
  if (named === undefined || !existsSync(named)) {
    files.push(join(home, platform === 'win32' ? 'pip' : '.pip', name), join(userFolder({ env, platform, home }), name))
  }
  if (env.VIRTUAL_ENV) files.push(join(env.VIRTUAL_ENV, name))
  if (named) files.push(named)
  return [...new Set(files)].filter((file) => existsSync(file))
}

function globalFolders(env: NodeJS.ProcessEnv, platform: NodeJS.Platform): string[] {
  if (platform === 'win32') return [join(env.PROGRAMDATA ?? 'C:\\ProgramData', 'pip')]
  if (platform === 'darwin') return ['/Library/Application Support/pip']
  // The first folder is the most important one.
  const folders = (env.XDG_CONFIG_DIRS || '/etc/xdg').split(delimiter).filter(Boolean)
  return folders.map((folder) => join(folder, 'pip')).reverse()
}

function userFolder({ env, platform, home }: Place): string {
  if (platform === 'win32') return join(env.APPDATA ?? join(home, 'AppData', 'Roaming'), 'pip')
  const library = join(home, 'Library', 'Application Support', 'pip')
  if (platform === 'darwin' && existsSync(library)) return library
  return join(env.XDG_CONFIG_HOME || join(home, '.config'), 'pip')
}

/** Sections of keys and values as Python's RawConfigParser reads them: a value goes on in lines that are indented. */
function parseIni(text: string, file: string): Map<string, Map<string, string>> {
  const sections = new Map<string, Map<string, string>>()
  let section = new Map<string, string>()
  let key: string | undefined
  for (const line of text.replace(/^\ufeff/, '').split(/\r?\n/)) {
    if (/^\s*([#;]|$)/.test(line)) continue
    const [, name] = /^\[([^\]]+)\]/.exec(line) ?? []
    if (name !== undefined) {
      section = sections.get(name) ?? new Map()
      sections.set(name, section)
      key = undefined
    } else if (/^\s/.test(line) && key !== undefined) {
      section.set(key, `${section.get(key)}\n${line.trim()}`)
    } else {
      const [, found, value] = /^\s*([^=:]+?)\s*[=:]\s*(.*?)\s*$/.exec(line) ?? []
      if (found === undefined) throw new UserError(`${file}: not a setting: ${line.trim()}`)
      key = normalKey(found)
      section.set(key, value!)
    }
  }
  return sections
}
