import { describe, expect, it } from 'vitest'
import { lookUp } from './lookup.ts'

describe('lookUp', () => {
  const options = { ngram: 2, most: 3 }
  it('gives what followed the ending before', () => {
    expect(lookUp([1, 2, 3, 4, 5, 6, 9, 2, 3], options)).toEqual([4, 5, 6])
    expect(lookUp([1, 2, 3, 7, 2, 3, 8, 2, 3], options)).toEqual([8, 2, 3])
  })
  it('prefers the longest match to the latest', () => {
    expect(lookUp([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3], options)).toEqual([7, 9, 2])
  })
  it('finds nothing in a text without repetition, and drafts no more than there is', () => {
    expect(lookUp([1, 2, 3, 4], options)).toEqual([])
    expect(lookUp([], options)).toEqual([])
    expect(lookUp([5], options)).toEqual([])
    expect(lookUp([7, 7, 7], options)).toEqual([7])
    expect(lookUp([3, 1, 3], options)).toEqual([])
    expect(lookUp([3, 1, 3], { ngram: 1, most: 9 })).toEqual([1, 3])
  })
})
