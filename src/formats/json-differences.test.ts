import { describe, expect, it } from 'vitest'
import { canonicalJson, jsonDifferences } from './json-differences.ts'

describe('jsonDifferences', () => {
  it('names the innermost keys, sorted, with both values', () => {
    const a = { train: { lr: 1, beta1: 0.9 }, model: 'a', shares: [1, 2], rope: null }
    const b = { shares: [1, 3], model: 'a', train: { beta1: 0.9, lr: 2 }, rope: { theta: 4 } }
    expect(jsonDifferences(a, b)).toEqual([
      { path: 'rope', a: null, b: { theta: 4 } },
      { path: 'shares', a: [1, 2], b: [1, 3] },
      { path: 'train.lr', a: 1, b: 2 },
    ])
    expect(jsonDifferences(a, structuredClone(a))).toEqual([])
  })

  it('takes a key that is missing and one that is undefined for the same', () => {
    expect(jsonDifferences({ a: undefined, b: 1 }, {})).toEqual([{ path: 'b', a: 1, b: undefined }])
  })
})

describe('canonicalJson', () => {
  it('does not depend on the order of keys', () => {
    expect(canonicalJson({ b: [{ d: 1, c: 2 }], a: undefined })).toBe('{"b":[{"c":2,"d":1}]}')
    expect(canonicalJson(undefined)).toBe('undefined')
  })
})
