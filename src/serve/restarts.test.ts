import { expect, test } from 'vitest'
import { createRestarts } from './restarts.ts'

test('pauses grow, ten starts in a row are the last, and a process that was well counts as a new beginning', () => {
  const restarts = createRestarts()
  const pauses = (count: number) => Array.from({ length: count }, () => restarts.pause())
  expect(pauses(2)).toEqual([0, 1])
  restarts.ended(4999)
  expect(pauses(10)).toEqual([2, 5, 10, 30, 30, 30, 30, 30, undefined, undefined])
  restarts.ended(5000)
  expect(pauses(2)).toEqual([0, 1])
  restarts.clear()
  expect(pauses(1)).toEqual([0])
})
