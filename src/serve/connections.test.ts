import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { guardConnections } from './connections.ts'

let server: Server
const clients: Socket[] = []
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  server.closeAllConnections()
  server.close()
})

/** A server that answers when told, and a client of it. `closed` counts responses whose client is gone. */
async function start(seconds = 30) {
  const responses: ServerResponse[] = []
  const state = { closed: 0, responses }
  server = createServer((_, response) => {
    responses.push(response)
    response.on('close', () => {
      if (!response.writableFinished) state.closed++
    })
  })
  guardConnections(server, seconds)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  client.on('error', () => {})
  clients.push(client)
  await once(client, 'connect')
  return { state, client }
}

const until = async (holds: () => boolean) => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}
const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

test('requests of a connection begin when those before them are answered', async () => {
  const { state, client } = await start()
  client.write(get.repeat(16))
  for (let count = 1; count <= 16; count++) {
    await until(() => state.responses.length === count)
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(state.responses.length).toBe(count)
    if (count < 16) state.responses[count - 1]!.end('done')
  }
  client.destroy()
  await until(() => state.closed === 1)
})

test('when a connection closes what runs is told, and nothing that waits begins', async () => {
  const { state, client } = await start()
  client.write(get.repeat(5))
  await until(() => state.responses.length === 1)
  client.destroy()
  await until(() => state.closed === 1)
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(state.responses.length).toBe(1)
})

test('a request whose client left before it could begin does not begin', async () => {
  const { state, client } = await start()
  client.write(get)
  client.destroy()
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(state.responses.length).toBe(0)
})

test('requests beyond those that a connection may have open close it', async () => {
  const { state, client } = await start()
  client.write(get.repeat(17))
  await once(client, 'close')
  await until(() => state.closed === state.responses.length)
})

test('a client that has ended its direction gets its answer', async () => {
  const { state, client } = await start()
  let answer = ''
  client.on('data', (chunk) => {
    answer += chunk
  })
  client.end(get)
  await until(() => state.responses.length === 1 && answer.split('100 Continue').length > 3)
  expect(state.closed).toBe(0)
  state.responses[0]!.end('done')
  await once(client, 'close')
  expect(answer).toMatch(/200 OK[\s\S]*done/)
})

test('a client that has ended its direction gets its stream', async () => {
  const { state, client } = await start()
  let answer = ''
  client.on('data', (chunk) => {
    answer += chunk
  })
  client.end(get)
  await until(() => state.responses.length === 1)
  state.responses[0]!.writeHead(200, { 'content-type': 'text/event-stream' })
  state.responses[0]!.write('data: 1\n\n')
  await until(() => answer.split(':\n\n').length > 3)
  state.responses[0]!.end('data: 2\n\n')
  await once(client, 'close')
  expect(answer).toMatch(/data: 1[\s\S]*data: 2/)
})

test('one that answers nothing more, or speaks an older HTTP, counts as gone', async () => {
  const { state, client } = await start()
  client.write('GET / HTTP/1.0\r\n\r\n')
  await until(() => state.responses.length === 1)
  client.end()
  await until(() => state.closed === 1)
})

test('a client that reads nothing is left, one that waits for its answer is not', async () => {
  const { state, client } = await start(0.2)
  client.pause()
  client.write(get)
  await until(() => state.responses.length === 1)
  await new Promise((resolve) => setTimeout(resolve, 500))
  expect(state.closed).toBe(0)
  state.responses[0]!.write(Buffer.alloc(32 << 20))
  await until(() => state.closed === 1)
})

test('a connection without requests is closed', async () => {
  const { client, state } = await start(0.2)
  client.resume()
  client.write(get)
  await until(() => state.responses.length === 1)
  state.responses[0]!.end('done')
  await once(client, 'close')
})
