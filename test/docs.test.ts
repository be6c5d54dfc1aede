import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { pages } from '../scripts/benchmarks/page.ts'
import { withOperations } from '../scripts/operations.ts'

describe('npm run docs:benchmarks', () => {
  it.each(Object.entries(pages))('has made %s from the reports that are there', (file, make) => {
    const current = readFileSync(new URL(`../${file}`, import.meta.url), 'utf8')
    expect(make(current)).toBe(current)
  })
})

it('npm run docs:programs has made the table of operations from the registry', () => {
  const current = readFileSync(new URL('../docs/programs.md', import.meta.url), 'utf8')
  expect(withOperations(current)).toBe(current)
})
