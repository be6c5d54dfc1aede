// The service worker of the page: it sets the headers that threads need, whatever the host sends, and keeps the page's own files for
// use without a network. The model's files are kept by the page. `export --to web` writes VERSION and FILES before it.
declare const VERSION: string
declare const FILES: readonly string[]

// TypeScript's library for service workers contradicts that for pages.
interface ExtendableEvent extends Event {
  waitUntil(work: Promise<unknown>): void
}
interface FetchEvent extends ExtendableEvent {
  readonly request: Request
  respondWith(response: Promise<Response>): void
}
const worker = globalThis as unknown as EventTarget & {
  skipWaiting(): Promise<void>
  clients: { claim(): Promise<void> }
  registration: { scope: string }
}

const PREFIX = 'unmask-page-'
const cacheName = PREFIX + VERSION
const { scope } = worker.registration
const own = new Set(FILES.map((file) => new URL(file, scope).href))

worker.addEventListener('install', (event) => {
  const keep = async () => {
    const cache = await caches.open(cacheName)
    await cache.addAll([...own].map((url) => new Request(url, { cache: 'reload' })))
    await worker.skipWaiting()
  }
  ;(event as ExtendableEvent).waitUntil(keep())
})

worker.addEventListener('activate', (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== cacheName) await caches.delete(name)
    await worker.clients.claim()
  }
  ;(event as ExtendableEvent).waitUntil(clean())
})

worker.addEventListener('fetch', (event) => {
  const { request } = event as FetchEvent
  if (request.method !== 'GET' || !request.url.startsWith(scope)) return
  ;(event as FetchEvent).respondWith(answer(request))
})

async function answer(request: Request): Promise<Response> {
  const url = new URL(request.url)
  url.search = ''
  url.hash = ''
  const kept = own.has(url.href) ? await (await caches.open(cacheName)).match(url.href) : undefined
  return isolated(kept ?? (await fetch(request)))
}

function isolated(response: Response): Response {
  if (response.status === 0) return response
  const headers = new Headers(response.headers)
  headers.set('cross-origin-opener-policy', 'same-origin')
  headers.set('cross-origin-embedder-policy', 'require-corp')
  headers.set('cross-origin-resource-policy', 'same-origin')
  const { status, statusText } = response
  return new Response(response.body, { status, statusText, headers })
}
