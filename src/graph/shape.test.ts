// Arithmetic on static and symbolic sizes.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { broadcast, type Dim, product, type Shape, sameShape, shapeText, staticSize, sum } from './shape.ts'

const dim = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom('N', 'M', 'batch'))
const shape = fc.array(dim, { maxLength: 5 })

describe('product', () => {
  it('of numbers is a number', () => {
    expect(product([2, 3, 4])).toBe(24)
    expect(product([])).toBe(1)
  })

  it('keeps names apart from numbers', () => {
    expect(product(['N', 4])).toBe('4*N')
    expect(product(['N', 1])).toBe('N')
    expect(product(['M', 'N', 2, 'M'])).toBe('2*M*M*N')
  })

  it('does not depend on order or grouping', () =>
    fc.assert(
      fc.property(shape, fc.nat(5), (dims, at) => {
        const grouped: Dim[] = [product(dims.slice(at)), product(dims.slice(0, at))]
        expect(product(grouped)).toBe(product(dims))
        expect(product([...dims].reverse())).toBe(product(dims))
      }),
    ))
})

describe('broadcast', () => {
  it('follows NumPy', () => {
    expect(broadcast([2, 1, 3], [4, 1])).toEqual([2, 4, 3])
    expect(broadcast([], ['N', 2])).toEqual(['N', 2])
    expect(broadcast(['N', 1], ['N', 5])).toEqual(['N', 5])
    expect(broadcast([2], [3])).toBeUndefined()
    expect(broadcast(['N'], [3])).toBeUndefined()
  })

  it('is symmetric, and a shape broadcasts with itself', () =>
    fc.assert(
      fc.property(shape, shape, (a, b) => {
        expect(broadcast(a, b)).toEqual(broadcast(b, a))
        expect(broadcast(a, a)).toEqual(a)
      }),
    ))
})

it('sum adds numbers and writes names', () => {
  expect(sum(2, 3)).toBe(5)
  expect(sum('N', 3)).toBe('(N+3)')
})

it('staticSize refuses a name', () => {
  expect(staticSize([2, 3])).toBe(6)
  expect(() => staticSize([2, 'N'])).toThrow('a static shape is needed, got [2, N]')
})

it('shapes compare by value', () => {
  const a: Shape = [1, 'N']
  expect(sameShape(a, [1, 'N'])).toBe(true)
  expect(sameShape(a, [1, 'M'])).toBe(false)
  expect(sameShape(a, [1])).toBe(false)
  expect(shapeText(a)).toBe('[1, N]')
})
