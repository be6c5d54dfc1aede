// Requests to package indexes: certificates, proxies, trusted hosts and passwords as pip's settings say.
import { EnvHttpProxyAgent, fetch as fetchWith } from 'undici'
import { UserError } from '../../core/types.ts'
import { readText } from '../file.ts'
import type { IndexSettings } from './settings.ts'

export interface IndexConnection {
  fetch: typeof fetch
  /** Headers for a request to this address: its own password, or that of an index on the same server. */
  headers(url: URL): Record<string, string>
  /** Throws UserError where the address is neither encrypted, nor on this machine, nor of a trusted host. */
  check(url: URL): void
  close(): Promise<void>
}

export async function connectToIndexes(settings: IndexSettings): Promise<IndexConnection> {
  const ca = settings.certificates === undefined ? undefined : await readCertificates(settings.certificates)
  const agent = (options: { rejectUnauthorized?: boolean }): EnvHttpProxyAgent => {
    const tls = { ca, ...options }
    const { proxy } = settings
    return new EnvHttpProxyAgent({ connect: tls, requestTls: tls, httpProxy: proxy, httpsProxy: proxy })
  }
  const verified = agent({})
  const unverified = agent({ rejectUnauthorized: false })
  const isTrusted = ({ host, hostname }: URL) =>
    settings.trustedHosts.some((name) => name === host || name === hostname)
  const passwords = new Map<string, string>()
  for (const address of [...settings.indexes, ...settings.findLinks]) {
    const url = new URL(address)
    const header = basic(url)
    if (header !== undefined) passwords.set(url.host, header)
  }
  return {
    fetch: ((input: string, init?: object) =>
      fetchWith(input, {
        ...init,
        dispatcher: isTrusted(new URL(input)) ? unverified : verified,
      })) as unknown as typeof fetch,
    headers: (url): Record<string, string> => {
      const header = basic(url) ?? passwords.get(url.host)
      return header === undefined ? {} : { Authorization: header }
    },
    check: (url) => {
      const local = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname)
      if (url.protocol === 'https:' || (url.protocol === 'http:' && (local || isTrusted(url)))) return
      throw new UserError(
        `${withoutPassword(url)}: an index must be https, or its host must be named by pip's setting trusted-host`,
      )
    },
    close: async () => {
      await Promise.all([verified.destroy(), unverified.destroy()])
    },
  }
}

const basic = ({ username, password }: URL): string | undefined =>
  username === ''
    ? undefined
    : `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`

/** An address as it may be shown and requested: without user and password. */
export function withoutPassword(url: URL): string {
  const shown = new URL(url)
  shown.username = ''
  shown.password = ''
  return shown.href
}

async function readCertificates(path: string): Promise<string | undefined> {
  const text = await readText(path)
  if (!text.includes('-----BEGIN CERTIFICATE-----'))
    throw new UserError(`${path}: holds no certificates; see pip's setting cert (PIP_CERT)`)
  return text
}
