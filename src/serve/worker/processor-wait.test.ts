import { expect, test } from 'vitest'
import { processorWait } from './processor-wait.ts'

test('what a process has waited never becomes less; of one that is not there nothing is known', () => {
  const before = processorWait(process.pid)
  for (let i = 0; i < 1e6; i++) Math.sqrt(i)
  expect(processorWait(process.pid)).toBeGreaterThanOrEqual(before)
  expect(processorWait(2 ** 30)).toBe(0)
})
