import { expect, test } from 'vitest'
import { createLeavers } from './leavers.ts'

const never = new AbortController().signal

/** Leavers at a time of the test's own, and how long each of their requests waited. */
function start() {
  const state = { time: 0, waits: [] as number[] }
  const leavers = createLeavers(
    () => state.time,
    async (ms) => state.waits.push(ms),
  )
  return { state, leavers }
}

test('who leaves requests waits for the next one, each a little more; others do not', async () => {
  const { state, leavers } = start()
  for (let i = 0; i < 20; i++) leavers.left('a')
  await leavers.turn('b', never)
  expect(state.waits).toEqual([])
  await leavers.turn('a', never)
  await leavers.turn('a', never)
  expect(state.waits).toEqual([100, 105])
  state.time = 1000
  await leavers.turn('a', never)
  expect(state.waits).toHaveLength(2)
})

test('no request waits longer than a second, whatever is left meanwhile: what would is refused', async () => {
  const { state, leavers } = start()
  for (let i = 0; i < 1000; i++) leavers.left('a')
  await expect(leavers.turn('a', never)).rejects.toMatchObject({ status: 429, retryAfter: 1 })
  state.time = 500
  await leavers.turn('a', never)
  expect(state.waits).toEqual([1000, 500])
})

test('200 requests a second may be left without waiting', async () => {
  const { state, leavers } = start()
  for (; state.time < 2000; state.time += 5) {
    await leavers.turn('a', never)
    leavers.left('a')
  }
  expect(state.waits).toEqual([])
})

test('a wait ends with its request', async () => {
  const leavers = createLeavers()
  for (let i = 0; i < 50; i++) leavers.left('a')
  const gone = new AbortController()
  const wait = leavers.turn('a', gone.signal)
  gone.abort(new Error('left'))
  await expect(wait).rejects.toThrow('left')
})
