// Server-sent events from a generator. Knows no API.

/** One event; `event` names it where the API does. */
export interface SentEvent {
  event?: string
  data: string
}

const utf8 = new TextEncoder()

/** A response that sends events as they come. When the client goes, `onCancel` is called and the generator left. */
export function eventStream(events: AsyncGenerator<SentEvent, void>, onCancel: () => void): Response {
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await events.next()
      if (done) return controller.close()
      const name = value.event === undefined ? '' : `event: ${value.event}\n`
      controller.enqueue(utf8.encode(`${name}data: ${value.data}\n\n`))
    },
    async cancel() {
      onCancel()
      await events.return()
    },
  })
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // Proxies that buffer would hold tokens back.
      'x-accel-buffering': 'no',
    },
  })
}
