import { expect, test } from 'vitest'
import { createLeavers } from './leavers.ts'

const never = new AbortController().signal
const time = async (wait: Promise<void>) => {
  const since = performance.now()
  await wait
  return performance.now() - since
}

test('who leaves many requests waits for the next, at most a second; others do not', async () => {
  const leavers = createLeavers()
  for (let i = 0; i < 1000; i++) leavers.left('a')
  const waits = Promise.all([time(leavers.turn('a', never)), time(leavers.turn('b', never))])
  const [own, other] = await waits
  expect(own).toBeGreaterThan(900)
  expect(other).toBeLessThan(own / 2)
})

test('what is left while it waits makes those behind it wait longer', async () => {
  const leavers = createLeavers()
  for (let i = 0; i < 20; i++) leavers.left('a')
  const waits = time(leavers.turn('a', never))
  for (let i = 0; i < 20; i++) leavers.left('a')
  expect(await waits).toBeGreaterThan(150)
})

test('a wait ends with its request', async () => {
  const leavers = createLeavers()
  for (let i = 0; i < 100; i++) leavers.left('a')
  const gone = new AbortController()
  const wait = leavers.turn('a', gone.signal)
  gone.abort(new Error('left'))
  await expect(wait).rejects.toThrow('left')
  await expect(leavers.turn('a', gone.signal)).rejects.toThrow('left')
})
