import { describe, expect, it } from 'vitest'
import * as z from 'zod'
import { check } from './check.ts'

/** `path: message` of each problem. */
const problems = (schema: z.ZodType, value: unknown) => {
  const result = check(schema, value)
  return 'problems' in result ? result.problems.map(({ path, message }) => `${path.join('.')}: ${message}`) : []
}
const problem = (schema: z.ZodType, value: unknown) => problems(z.object({ a: schema }), { a: value })

describe('check', () => {
  it('returns what the schema makes of a value', () => {
    expect(check(z.object({ a: z.number().default(3) }), {})).toEqual({ data: { a: 3 } })
  })

  it.each<[z.ZodType, unknown, string]>([
    [z.string(), undefined, 'is required'],
    [z.string(), 3, 'expected text, not 3'],
    [z.number(), 'x', 'expected a number, not "x"'],
    [z.int(), 1.5, 'expected a whole number, not 1.5'],
    [z.boolean(), null, 'expected true or false, not null'],
    [z.array(z.string()), {}, 'expected a list, not {}'],
    [z.object({}), [], 'expected keys with values, not []'],
    [z.record(z.string(), z.number()), 1, 'expected keys with values, not 1'],
    [z.enum(['x', 'y']), 'z', 'expected one of x, y, not "z"'],
    [z.literal('x'), 'z', 'expected x, not "z"'],
    [z.number().min(1), 0, 'expected a number of at least 1, not 0'],
    [z.number().gt(0), 0, 'expected a number above 0, not 0'],
    [z.number().max(1), 2, 'expected a number of at most 1, not 2'],
    [z.string().min(1), '', 'must not be empty'],
    [z.array(z.string()).min(1), [], 'must not be empty'],
    [z.string().max(2), 'abc', 'expected at most 2 characters, not 3'],
    [z.string().min(4), 'abc', 'expected at least 4 characters, not 3'],
    [z.array(z.int()).max(1), [1, 2], 'expected at most 1 entries, not 2'],
    [z.url(), 'x', 'expected a URL, not "x"'],
    [z.union([z.string(), z.array(z.string())]), 3, 'expected text or a list, not 3'],
    [z.string().max(300), ['x'.repeat(200)], `expected text, not ["${'x'.repeat(78)}...`],
  ])('%#: says what was expected and what stood there', (schema, value, message) => {
    expect(problem(schema, value)).toEqual([`a: ${message}`])
  })

  it("leaves a schema its own words, with what stood there behind 'expected'", () => {
    expect(problem(z.string().regex(/^a/, 'expected an a'), 'b')).toEqual(['a: expected an a, not "b"'])
    expect(problem(z.null('is not supported: use b').optional(), 1)).toEqual(['a: is not supported: use b'])
    expect(problem(z.array(z.string(), 'name at least one'), undefined)).toEqual(['a: name at least one'])
    expect(problem(z.string('expected a name'), undefined)).toEqual(['a: is required'])
    expect(problem(z.record(z.string().regex(/^\d+$/, 'keys are ids'), z.number()), { x: 1 })).toEqual([
      'a.x: keys are ids',
    ])
  })

  it('names every key that is unknown', () => {
    expect(problems(z.strictObject({ a: z.int() }), { a: 1, b: 2, c: 3 })).toEqual(['b: unknown key', 'c: unknown key'])
  })

  it('of forms that none matched, takes the one that came furthest', () => {
    const item = z.union([z.string(), z.strictObject({ mask: z.int().max(512) })], 'expected a text or {"mask": N}')
    expect(problem(z.array(item), ['x', { mask: 900 }])).toEqual([
      'a.1.mask: expected a number of at most 512, not 900',
    ])
    expect(problem(item, 4)).toEqual(['a: expected a text or {"mask": N}, not 4'])
    const count = z.union([z.int(), z.string().regex(/^\d+k$/, 'expected a number such as 3k')])
    expect(problem(count, '4x')).toEqual(['a: expected a number such as 3k, not "4x"'])
  })
})
