// A small package index: the simple API in its JSON (PEP 691) or HTML (PEP 503) form, and the files.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface PackageServerOptions {
  form: 'json' | 'html'
  files: {
    name: string
    bytes: Buffer
    yanked?: boolean
    /** Stated sha256, where it is to be wrong. */
    digest?: string
    /** Stated address, where it is to lead elsewhere. */
    link?: string
  }[]
  /** user:password of the index. */
  password?: string
  /** Files are served by another server, which wants no password. */
  storage?: boolean
}

export interface PackageServer {
  url: string
  /** Each entry of `truncate` ends one response after that many bytes. */
  faults: { truncate: number[] }
  requests: { path: string; range: string | undefined; authorization: string | undefined; storage: boolean }[]
  close(): Promise<void>
}

const listen = (handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> =>
  new Promise((resolve) => {
    const server = createServer(handler)
    server.listen(0, '127.0.0.1', () => resolve(server))
  })

const urlOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const closed = (server: Server | undefined): Promise<void> =>
  new Promise((resolve) => {
    if (!server) return resolve()
    server.close(() => resolve())
    server.closeAllConnections()
  })

export async function startPackageServer(options: PackageServerOptions): Promise<PackageServer> {
  const { form, files, password } = options
  const faults: PackageServer['faults'] = { truncate: [] }
  const requests: PackageServer['requests'] = []

  const record = (request: IncomingMessage, storage: boolean): string => {
    const path = request.url ?? '/'
    const { range, authorization } = request.headers
    requests.push({ path, range, authorization, storage })
    return path
  }

  function sendFile(path: string, request: IncomingMessage, response: ServerResponse): void {
    const file = files.find(({ name }) => path === `/files/${name}`)
    if (!file) {
      response.writeHead(404).end()
      return
    }
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    const part = file.bytes.subarray(start)
    response.writeHead(start > 0 ? 206 : 200, {
      'Content-Length': part.length,
      ...(start > 0 ? { 'Content-Range': `bytes ${start}-${file.bytes.length - 1}/${file.bytes.length}` } : {}),
    })
    if (request.method === 'HEAD') {
      response.end()
      return
    }
    const cut = faults.truncate.shift()
    if (cut === undefined) response.end(part)
    // The reader gets its time: what a reset connection still holds is lost.
    else response.write(part.subarray(0, cut), () => setTimeout(() => response.destroy(), 200))
  }

  const storage = options.storage
    ? await listen((request, response) => sendFile(record(request, true), request, response))
    : undefined

  function sendPage(response: ServerResponse): void {
    const root = storage ? urlOf(storage) : '../..'
    const entries = files.map(({ name, bytes, yanked = false, digest, link }) => ({
      filename: name,
      url: link ?? `${root}/files/${name}`,
      hashes: { sha256: digest ?? createHash('sha256').update(bytes).digest('hex') },
      size: bytes.length,
      yanked: yanked && 'broken',
    }))
    if (form === 'json') {
      response.setHeader('Content-Type', 'application/vnd.pypi.simple.v1+json')
      response.end(JSON.stringify({ meta: { 'api-version': '1.1' }, name: 'tiny-model', files: entries }))
      return
    }
    response.setHeader('Content-Type', 'text/html; charset=utf-8')
    const links = entries.map(
      ({ filename, url, hashes, yanked }) =>
        `<a href="${url}#sha256=${hashes.sha256}"${yanked ? ' data-yanked="broken &amp; old"' : ''}>${filename}</a><br>`,
    )
    response.end(`<!DOCTYPE html><html><body>\n${links.join('\n')}\n</body></html>`)
  }

  const server = await listen((request, response) => {
    const path = record(request, false)
    const expected = password && `Basic ${Buffer.from(password).toString('base64')}`
    if (expected && request.headers.authorization !== expected) response.writeHead(401).end()
    else if (path === '/simple/tiny-model/') sendPage(response)
    else if (path.startsWith('/plain/')) response.writeHead(200, { 'Content-Type': 'text/plain' }).end('hello')
    else sendFile(path, request, response)
  })
  return {
    url: urlOf(server),
    faults,
    requests,
    close: async () => {
      await Promise.all([closed(server), closed(storage)])
    },
  }
}
