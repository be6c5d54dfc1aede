import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { pages } from '../scripts/benchmarks/page.ts'

describe('npm run docs:benchmarks', () => {
  it.each(Object.entries(pages))('has made %s from the reports that are there', (file, make) => {
    const current = readFileSync(new URL(`../${file}`, import.meta.url), 'utf8')
    expect(make(current)).toBe(current)
  })
})
