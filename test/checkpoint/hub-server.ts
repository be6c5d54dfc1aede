// A small server that answers as the Hugging Face Hub does: model info, file listing, resolve with ranges and redirects.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const COMMIT = '0123456789abcdef0123456789abcdef01234567'

export interface HubRepository {
  name: string
  files: Record<string, Buffer>
  /** Needed to see the repository; without it the answer is 401, as the Hub's is. */
  token?: string
}

/** What goes wrong; each entry of `truncate` ends one response after that many bytes. */
export interface Faults {
  truncate: number[]
  /** Answers this many requests for files with 503. */
  unavailable: number
  /** Sends other bytes of the same length, this many times. */
  corrupt: number
  ignoreRanges: boolean
}

export interface HubServer {
  url: string
  faults: Faults
  /** Every request: method, path, and the headers that matter. */
  requests: { path: string; range: string | undefined; authorization: string | undefined; storage: boolean }[]
  close(): Promise<void>
}

const listen = (handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> =>
  new Promise((resolve) => {
    const server = createServer(handler)
    server.listen(0, '127.0.0.1', () => resolve(server))
  })

const urlOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

const gitId = (bytes: Buffer): string => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')

/** Weights are in large-file storage: listed with their sha256 and served by another host after a redirect. */
const isLarge = (name: string): boolean => /\.(safetensors|gguf)$/.test(name)

export const startHub = async (repository: HubRepository): Promise<HubServer> => {
  const faults: Faults = { truncate: [], unavailable: 0, corrupt: 0, ignoreRanges: false }
  const requests: HubServer['requests'] = []

  const record = (request: IncomingMessage, storage: boolean): string => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://hub').pathname)
    const { range, authorization } = request.headers
    requests.push({ path, range, authorization, storage })
    return path
  }

  const sendFile = (name: string, request: IncomingMessage, response: ServerResponse): void => {
    if (faults.unavailable > 0) {
      faults.unavailable--
      response.writeHead(503).end()
      return
    }
    let body = repository.files[name]!
    if (faults.corrupt > 0) {
      faults.corrupt--
      body = Buffer.alloc(body.length, 0x5a)
    }
    const [, from] = /^bytes=(\d+)-$/.exec(request.headers.range ?? '') ?? []
    const start = from === undefined || faults.ignoreRanges ? 0 : Number(from)
    const part = body.subarray(start)
    const headers: Record<string, string | number> = { ETag: `"${sha256(body)}"`, 'Content-Length': part.length }
    if (start > 0) headers['Content-Range'] = `bytes ${start}-${body.length - 1}/${body.length}`
    response.writeHead(start > 0 ? 206 : 200, headers)
    const cut = faults.truncate.shift()
    if (cut === undefined) response.end(part)
    else {
      // The reader gets its time: what a reset connection still holds is lost.
      response.write(part.subarray(0, cut), () => setTimeout(() => response.destroy(), 200))
    }
  }

  const storage = await listen((request, response) => sendFile(record(request, true).slice(1), request, response))

  const hub = await listen((request, response) => {
    const path = record(request, false)
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value))
    }
    const api = `/api/models/${repository.name}`
    const resolve = `/${repository.name}/resolve/${COMMIT}/`
    const known = [`${api}/revision/`, `${api}/tree/`, resolve].some((prefix) => path.startsWith(prefix))
    if (!known || (repository.token !== undefined && request.headers.authorization !== `Bearer ${repository.token}`)) {
      const sent = request.headers.authorization !== undefined
      json(known && sent ? 403 : 401, { error: 'Invalid username or password.' })
      return
    }
    if (path.startsWith(`${api}/revision/`)) {
      const revision = path.slice(`${api}/revision/`.length)
      if (!['main', 'v1', 'refs/pr/1', COMMIT].includes(revision)) json(404, { error: `Invalid rev id: ${revision}` })
      else
        json(200, { _id: '1', id: repository.name, sha: COMMIT, private: false, lastModified: '2024-01-01T00:00:00Z' })
    } else if (path.startsWith(`${api}/tree/`)) {
      json(
        200,
        Object.entries(repository.files).map(([name, bytes]) => ({
          type: 'file',
          path: name,
          size: bytes.length,
          oid: isLarge(name) ? '0'.repeat(40) : gitId(bytes),
          ...(isLarge(name) ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 130 } } : {}),
        })),
      )
    } else {
      const name = path.slice(resolve.length)
      if (repository.files[name] === undefined) json(404, { error: 'Entry not found' })
      else if (isLarge(name)) response.writeHead(302, { Location: `${urlOf(storage)}/${name}` }).end()
      else sendFile(name, request, response)
    }
  })

  return {
    url: urlOf(hub),
    faults,
    requests,
    close: async () => {
      for (const server of [hub, storage]) {
        server.closeAllConnections()
        await new Promise((done) => server.close(done))
      }
    },
  }
}
