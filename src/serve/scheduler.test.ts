import { setMaxListeners } from 'node:events'
import { expect, test } from 'vitest'
import { createQueue } from './scheduler.ts'

const never = new AbortController().signal
setMaxListeners(0, never)
/** Lets everything that can go on go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve))

test('clients take turns, and each keeps its own order', async () => {
  const queue = createQueue({ concurrency: 1, limit: 100, seconds: 10 })
  const order: string[] = []
  const first = await queue.acquire('a', never)
  const line = ['a1', 'a2', 'a3', 'b1', 'b2', 'c1'].map(async (name) => {
    const release = await queue.acquire(name[0]!, never)
    order.push(name)
    release()
  })
  expect(queue.waiting).toBe(6)
  first()
  await Promise.all(line)
  expect(order).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3'])
  expect([queue.running, queue.waiting]).toEqual([0, 0])
})

test('no more run than there are places, and a place given back twice counts once', async () => {
  const queue = createQueue({ concurrency: 3, limit: 100, seconds: 10 })
  let most = 0
  await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const release = await queue.acquire(String(i % 4), never)
      most = Math.max(most, queue.running)
      await settle()
      release()
      release()
    }),
  )
  expect(most).toBe(3)
  expect(queue.running).toBe(0)
})

test('who goes leaves the line, and a full line turns away', async () => {
  const queue = createQueue({ concurrency: 1, limit: 1, seconds: 10 })
  const release = await queue.acquire('a', never)
  const stop = new AbortController()
  const gone = queue.acquire('a', stop.signal)
  expect(() => queue.admit('a', 1)).toThrow(expect.objectContaining({ status: 429, code: 'queue_full' }))
  stop.abort(new Error('gone'))
  await expect(gone).rejects.toThrow('gone')
  expect(queue.waiting).toBe(0)
  queue.admit('a', 1)
  release()
})

test('who waits too long is turned away, and all are when the line is cleared', async () => {
  const queue = createQueue({ concurrency: 1, limit: 10, seconds: 0.01 })
  const release = await queue.acquire('a', never)
  await expect(queue.acquire('b', never)).rejects.toMatchObject({ status: 429, code: 'queue_timeout' })
  const waiting = queue.acquire('b', never)
  queue.clear(new Error('cleared'))
  await expect(waiting).rejects.toThrow('cleared')
  release()
  expect([queue.running, queue.waiting]).toEqual([0, 0])
})

test('one client takes neither all places nor all the room to wait', async () => {
  const queue = createQueue({ concurrency: 8, limit: 8, seconds: 10 })
  const places: Promise<() => void>[] = []
  const fill = (client: string) => {
    let count = 0
    for (; count < 100; count++) {
      try {
        queue.admit(client, 1)
      } catch (error) {
        expect(error).toMatchObject({ status: 429, code: 'queue_full' })
        return count
      }
      places.push(queue.acquire(client, never))
    }
    return count
  }
  // One place is left, and half of the room; then half of the rest.
  expect(fill('a')).toBe(7 + 4)
  expect([queue.running, queue.waiting]).toEqual([7, 4])
  expect(fill('b')).toBe(1 + 2)
  expect(queue.running).toBe(8)
  expect(fill('c')).toBe(1)
  queue.clear(new Error('cleared'))
  for (const place of await Promise.allSettled(places)) if (place.status === 'fulfilled') place.value()
  expect([queue.running, queue.waiting]).toEqual([0, 0])
})

test('beside others, also those that come back, a client takes half of what they leave', async () => {
  const queue = createQueue({ concurrency: 8, limit: 100, seconds: 10 })
  const [first, second] = [await queue.acquire('b', never), await queue.acquire('b', never)]
  const places = Array.from({ length: 8 }, () => queue.acquire('a', never))
  await settle()
  expect([queue.running, queue.waiting]).toEqual([2 + 3, 5])
  first()
  second()
  await settle()
  expect([queue.running, queue.waiting]).toEqual([4, 4])
  const third = await queue.acquire('b', never)
  third()
  queue.clear(new Error('cleared'))
  for (const place of await Promise.allSettled(places)) if (place.status === 'fulfilled') place.value()
  expect([queue.running, queue.waiting]).toEqual([0, 0])
})
