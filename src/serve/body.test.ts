import fc from 'fast-check'
import { expect, test } from 'vitest'
import { deeperThan } from './body.ts'

const depthOf = (value: unknown): number =>
  typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0

test('nesting is that of the value, brackets in strings aside', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
      const depth = depthOf(value)
      expect(deeperThan(JSON.stringify(value), depth)).toBe(false)
      if (depth > 0) expect(deeperThan(JSON.stringify(value), depth - 1)).toBe(true)
    }),
  )
})
