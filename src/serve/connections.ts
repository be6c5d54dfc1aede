// What clients do to their connections beside sending requests: they leave, wholly or with one direction, send more requests
// than they wait for, or read nothing of what they asked for. Knows no routes.
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Requests that one connection may have sent before their answers: more is what only an attacker sends. */
const MOST_PIPELINED = 16
/** When a client that has ended its direction is asked whether it still reads, in milliseconds; the last repeats. */
const PROBES = [0, 20, 250]

/**
 * Ends what nobody waits for, and begins a connection's requests one after the other, as they are answered. A response whose
 * client is gone emits `close`. A client that ends its own direction alone gets its answer. A connection of which nothing is
 * read for `seconds` while bytes wait for it is closed. To be called once the server has its listeners of requests.
 */
export function guardConnections(server: Server, seconds: number): void {
  /** Responses of the requests that are open, in their order. */
  const connections = new WeakMap<Socket, Set<ServerResponse>>()
  const listeners = server.listeners('request')
  server.removeAllListeners('request')
  /** Bytes that had been read when the last answer ended. */
  const answered = new WeakMap<Socket, number>()
  // Otherwise Node drops the answers of clients that have ended their direction.
  Object.assign(server, { httpAllowHalfOpen: true })

  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    const open = connections.get(socket) ?? watch(socket)
    const begin = () =>
      unlessLeft(request, () => {
        for (const listener of listeners) listener.call(server, request, response)
      })
    const before = [...open].at(-1)
    open.add(response)
    response.once('close', () => {
      open.delete(response)
      answered.set(socket, socket.bytesRead)
    })
    if (open.size > MOST_PIPELINED) socket.destroy()
    else if (!before) begin()
    else before.once('close', begin)
  })

  function watch(socket: Socket): Set<ServerResponse> {
    const open = new Set<ServerResponse>()
    connections.set(socket, open)
    socket.once('close', () => {
      // Node tells the response whose turn it is alone.
      for (const response of [...open]) if (!response.socket) response.emit('close')
    })
    socket.once('end', () => {
      let tries = 0
      const ask = () => {
        const [current] = open
        if (socket.destroyed || !current) return
        probe(socket, current)
        setTimeout(ask, PROBES[Math.min(++tries, PROBES.length - 1)]).unref()
      }
      ask()
    })
    return open
  }

  // Requests of which a part has arrived are answered by Node, after times of their own.
  server.setTimeout(seconds * 1000, (socket: Socket) => {
    const isAnswering = (connections.get(socket)?.size ?? 0) > 0
    const isArriving = socket.bytesRead > (answered.get(socket) ?? 0)
    if ((!isAnswering && !isArriving) || socket.writableLength > 0) socket.destroy()
  })
}

/**
 * Begins a request unless its client is gone by now. The end of a connection that was closed while it waited to be accepted is
 * read in the turn of the event loop after its request: one `setImmediate` ends this turn, the other the next. Where more of the
 * body waits than Node reads ahead, the end is not seen yet, and the request begins.
 */
function unlessLeft({ socket, httpVersionMinor }: IncomingMessage, begin: () => void): void {
  // Before HTTP/1.1 nobody can be asked.
  if (httpVersionMinor === 0) {
    begin()
    return
  }
  const unlessClosed = () => {
    if (!socket.destroyed) begin()
  }
  setImmediate(() =>
    setImmediate(() => {
      // What the first question has brought about, a connection that is gone, the second finds: it is asked just before this.
      if (socket.readableEnded) setTimeout(unlessClosed, PROBES[1])
      else unlessClosed()
    }),
  )
}

/** Sends what a client that reads passes over; of one that is gone the system then says so. */
function probe(socket: Socket, response: ServerResponse): void {
  // Before HTTP/1.1 nothing can be sent that is not the answer.
  if (response.req.httpVersionMinor === 0) socket.destroy()
  else if (!response.headersSent) response.writeContinue()
  else if (/^content-type: text\/event-stream/im.test(sentHeader(response))) response.write(':\n\n')
}

/** The header as it was sent: `getHeader` knows nothing of what was given to `writeHead`. */
const sentHeader = (response: ServerResponse): string => (response as { _header?: string | null })._header ?? ''
