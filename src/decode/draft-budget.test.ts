// What drafts and masks are worth: as many as pay, fewer where positions cost more or drafts fail.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createDraftBudget } from './draft-budget.ts'

describe('createDraftBudget', () => {
  it('takes all where positions cost nothing, and none where one costs a forward', () => {
    const free = createDraftBudget({ rowCost: 0, masks: 5 })
    expect(free.masksBehind(0.01)).toBe(5)
    expect(free.worthVerifying([0.1, 0.1, 0.1])).toBe(3)
    const dear = createDraftBudget({ rowCost: 1, masks: 5 })
    expect(dear.masksBehind(1)).toBe(0)
    expect(dear.worthVerifying([1, 1])).toBe(0)
  })

  it('ends drafts before the first that is not worth its time, whatever comes behind it', () => {
    // At first a forward is taken to bring 2 tokens: a position of 0.05 forwards is worth 0.1 tokens.
    const budget = createDraftBudget({ rowCost: 0.05, masks: 2 })
    expect(budget.worthVerifying([0.5, 0.5, 0.5, 0.5, 1])).toBe(3)
    expect(budget.worthVerifying([])).toBe(0)
  })

  it('never has more masks behind a less likely position, or where positions cost more', () =>
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 0.5, noNaN: true }),
        fc.integer({ min: 1, max: 16 }),
        (a, b, rowCost, masks) => {
          const [less, more] = [Math.min(a, b), Math.max(a, b)]
          const budget = createDraftBudget({ rowCost, masks })
          expect(budget.masksBehind(less)).toBeLessThanOrEqual(budget.masksBehind(more))
          const dearer = createDraftBudget({ rowCost: Math.min(1, rowCost * 2), masks })
          expect(dearer.masksBehind(more)).toBeLessThanOrEqual(budget.masksBehind(more))
        },
      ),
      { seed: 1 },
    ))

  it('has fewer masks where their drafts are rejected, and tries again', () => {
    const budget = createDraftBudget({ rowCost: 0.05, masks: 8 })
    const before = budget.masksBehind(1)
    for (let i = 0; i < 100; i++) budget.followMasks(budget.masksBehind(1), 0)
    expect(budget.masksBehind(1)).toBeLessThan(before)
    const tried = Array.from({ length: 100 }, () => {
      const count = budget.masksBehind(1)
      budget.followMasks(count, 0)
      return count
    })
    expect(Math.max(...tried)).toBeGreaterThan(0)
    for (let i = 0; i < 100; i++) budget.followMasks(budget.masksBehind(1), budget.masksBehind(1))
    expect(budget.masksBehind(1)).toBe(8)
  })

  it('has fewer masks where a forward brings many tokens without them, and where texts share it', () => {
    const budget = createDraftBudget({ rowCost: 0.05, masks: 8 })
    const before = budget.masksBehind(1)
    for (let i = 0; i < 20; i++) budget.followForward(8, 9)
    expect(budget.masksBehind(1)).toBeLessThan(before)
    expect(createDraftBudget({ rowCost: 0.05, masks: 8 }, () => 32).masksBehind(1)).toBe(0)
  })
})
