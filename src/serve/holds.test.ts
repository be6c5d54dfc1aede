import { expect, test } from 'vitest'
import { createHolds } from './holds.ts'

test('a client may hold half of what others leave, until its requests end', () => {
  const holds = createHolds(1000)
  const [first, second, other] = ['a', 'a', 'b'].map((client) => holds.open(client))
  first!.add(300)
  second!.add(200)
  expect(() => second!.add(1)).toThrow(/too much memory/)
  other!.add(250)
  expect(() => other!.add(1)).toThrow(expect.objectContaining({ status: 429, code: 'answer_too_large' }))
  first!.drop(100)
  expect(holds.bytes).toBe(650)
  first!.end()
  first!.add(1000)
  first!.drop(1)
  expect(holds.bytes).toBe(450)
  second!.drop(999)
  second!.end()
  other!.end()
  expect(holds.bytes).toBe(0)
})
