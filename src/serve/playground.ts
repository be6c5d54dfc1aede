// The playground's files: a fixed few, read once, so that no path of a client reaches the file system. Knows nothing of what
// is in them.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import type { Context, Hono } from 'hono'
import { secureHeaders } from 'hono/secure-headers'
import { ApiError } from './errors.ts'
import type { Env } from './routes/settings.ts'

const files = {
  '/': { file: 'index.html', type: 'text/html; charset=utf-8' },
  '/playground.js': { file: 'playground.js', type: 'text/javascript; charset=utf-8' },
  '/playground.css': { file: 'playground.css', type: 'text/css; charset=utf-8' },
  '/icon.svg': { file: 'icon.svg', type: 'image/svg+xml' },
} as const

/** They reveal nothing of models or use: the page asks for the key itself. */
export const playgroundPaths: ReadonlySet<string> = new Set(Object.keys(files))

/** Nothing but the server's own files and API; no code, style or markup from text. */
export const playgroundHeaders = secureHeaders({
  contentSecurityPolicy: {
    defaultSrc: ["'none'"],
    scriptSrc: ["'self'"],
    styleSrc: ["'self'"],
    imgSrc: ["'self'"],
    connectSrc: ["'self'"],
    baseUri: ["'none'"],
    formAction: ["'none'"],
    frameAncestors: ["'none'"],
    requireTrustedTypesFor: ["'script'"],
    trustedTypes: ["'none'"],
  },
  xFrameOptions: 'DENY',
  strictTransportSecurity: false,
  permissionsPolicy: { camera: [], microphone: [], geolocation: [] },
})

/** Adds the routes. `npm run build` puts the files where both the sources and the build look. */
export function addPlayground(app: Hono<Env>): void {
  const folder = new URL(import.meta.url.endsWith('.ts') ? '../../dist/web/' : '../web/', import.meta.url)
  for (const [path, { file, type }] of Object.entries(files)) {
    const url = new URL(file, folder)
    if (!existsSync(url)) {
      app.get(path, () => {
        throw new ApiError(404, 'the playground is not built: npm run build', { code: 'not_found' })
      })
      continue
    }
    const body = readFileSync(url)
    const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
    app.get(path, (c: Context) => {
      const headers = { 'content-type': type, 'cache-control': 'no-cache', etag }
      return c.req.header('if-none-match') === etag ? c.body(null, 304, headers) : c.body(body, 200, headers)
    })
  }
}
