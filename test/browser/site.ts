// A site for the tests of `unmask/web`: its modules, the runtime and models, served as a static host would, with faults on demand.
import { createReadStream } from 'node:fs'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))

export interface Site {
  /** Ends with a slash. */
  url: string
  /** Paths that were asked for, since it was last emptied. */
  asked: string[]
  /** Answers a request in place of the site; false leaves it to the site. */
  intercept: (path: string, response: ServerResponse, request: IncomingMessage) => boolean | Promise<boolean>
  close(): Promise<void>
}

const types: Record<string, string> = {
  ...{ '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript' },
  ...{ '.wasm': 'application/wasm', '.json': 'application/json', '.css': 'text/css', '.svg': 'image/svg+xml' },
  '.webmanifest': 'application/manifest+json',
}

const PAGE = `<!doctype html><meta charset="utf-8"><title>test</title><script type="module" src="/test.js"></script>`
const SCRIPT = `import * as unmask from '/lib/index.js'
globalThis.unmask = unmask
globalThis.runtime = { script: new URL('/runtime/ort-wasm-simd-threaded.mjs', location.href).href }
`

export const runtimeFolder = join(root, 'node_modules', 'onnxruntime-web', 'dist')

/** Bundles `unmask/web` as an application's bundler would, into a folder. */
export async function bundle(): Promise<{ folder: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'unmask-web-'))
  await build({
    ...{ absWorkingDir: root, bundle: true, minify: true, format: 'esm', target: 'es2022', outdir: folder },
    entryPoints: { index: 'src/browser/index.ts', worker: 'src/browser/worker.ts' },
    external: ['onnxruntime-web/*'],
    logLevel: 'warning',
  })
  return { folder, remove: () => rm(folder, { recursive: true }) }
}

export interface SiteOptions {
  /** Folders by the path under which they are served, which ends with a slash. */
  folders: Record<string, string>
  /** Sends the headers that let a page have shared memory, and so threads. Default true. */
  isolated?: boolean
}

export async function startSite({ folders, isolated = true }: SiteOptions): Promise<Site> {
  const site: Pick<Site, 'asked' | 'intercept'> = { asked: [], intercept: () => false }
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url!, 'http://x').pathname)
    site.asked.push(path)
    if (isolated) {
      response.setHeader('cross-origin-opener-policy', 'same-origin')
      response.setHeader('cross-origin-embedder-policy', 'require-corp')
    }
    if (await site.intercept(path, response, request)) return
    if (path === '/' && !folders['/']) {
      response.setHeader(
        'content-security-policy',
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'",
      )
      response.setHeader('content-type', types['.html']!)
      response.end(PAGE)
      return
    }
    if (path === '/test.js') {
      response.setHeader('content-type', types['.js']!)
      response.end(SCRIPT)
      return
    }
    const mount = Object.keys(folders)
      .sort((a, b) => b.length - a.length)
      .find((prefix) => path.startsWith(prefix))
    const file = mount && join(folders[mount]!, normalize(`/${path.slice(mount.length) || 'index.html'}`))
    if (!file || !(await stat(file).catch(() => undefined))?.isFile()) {
      response.statusCode = 404
      response.end('not found')
      return
    }
    response.setHeader('content-type', types[extname(file)] ?? 'application/octet-stream')
    response.setHeader('content-length', (await stat(file)).size)
    createReadStream(file).pipe(response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return Object.assign(site, {
    url: `http://127.0.0.1:${port}/`,
    close: () =>
      new Promise<void>((resolve) => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  })
}
