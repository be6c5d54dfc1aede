import { expect, it } from 'vitest'
import { readableLine } from './log.ts'

it('is readable: time, level, message and fields', () => {
  const time = new Date(2026, 0, 2, 3, 4, 5).toISOString()
  const line = JSON.stringify({
    level: 30,
    time,
    name: 'unmask',
    route: '/v1/models',
    status: 200,
    models: ['a'],
    msg: 'request',
  })
  expect(readableLine(line)).toBe('03:04:05 info  request route=/v1/models status=200 models=["a"]')
  expect(readableLine(JSON.stringify({ level: 50, time, msg: 'no' }))).toBe('03:04:05 ERROR no')
})
