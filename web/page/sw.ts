// The service worker of the page: it sets the headers that threads need, whatever the host sends, and keeps the page's own files for
// use without a network. It keeps them as they pass, so that a first visit fetches nothing twice and waits for none, and the rest
// when the page says that it is ready. The model's files are kept by the page. `export --to web` writes VERSION and FILES before it.
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
/** Not from the browser's own cache, which may hold the file of another version. */
const FROM_SERVER: RequestInit = { cache: 'no-cache' }
const { scope } = worker.registration
const own = new Set(FILES.map((file) => new URL(file, scope).href))

worker.addEventListener('install', (event) => (event as ExtendableEvent).waitUntil(worker.skipWaiting()))

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
  ;(event as FetchEvent).respondWith(answer(event as FetchEvent))
})

worker.addEventListener('message', (event) => {
  const keepRest = async () => {
    const cache = await caches.open(cacheName)
    for (const url of own) if (!(await cache.match(url))) await cache.add(new Request(url, FROM_SERVER))
  }
  ;(event as Event as ExtendableEvent).waitUntil(keepRest())
})

async function answer(event: FetchEvent): Promise<Response> {
  const { request } = event
  const url = new URL(request.url)
  url.search = ''
  url.hash = ''
  if (!own.has(url.href)) return isolated(await fetch(request))
  const cache = await caches.open(cacheName)
  const kept = await cache.match(url.href)
  if (kept) return isolated(kept)
  const response = await fetch(url.href, FROM_SERVER)
  if (response.ok) event.waitUntil(cache.put(url.href, response.clone()))
  return isolated(response)
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
