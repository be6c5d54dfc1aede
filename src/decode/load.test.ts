import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { breakEven, createCostMeter } from './load.ts'

describe('createCostMeter', () => {
  it('finds the cost of a position where forwards have different numbers of them', () => {
    const meter = createCostMeter()
    for (let i = 0; i < 40; i++) meter.observe(1 + (i % 8), 10 + 0.5 * (1 + (i % 8)))
    expect(meter.perPosition()).toBeCloseTo(0.05, 6)
  })
  it('follows what changes', () => {
    const meter = createCostMeter()
    for (let i = 0; i < 100; i++) meter.observe(1 + (i % 8), 10 + 0.5 * (1 + (i % 8)))
    for (let i = 0; i < 600; i++) meter.observe(1 + (i % 8), 10 + 2 * (1 + (i % 8)))
    expect(meter.perPosition()).toBeCloseTo(0.2, 3)
  })
  it('says nothing where it cannot tell', () => {
    const meter = createCostMeter()
    expect(meter.perPosition()).toBe(0)
    for (let i = 0; i < 40; i++) meter.observe(4, 10 + (i % 3))
    expect(meter.perPosition()).toBe(0)
    const noise = createCostMeter()
    for (let i = 0; i < 40; i++) noise.observe(1 + (i % 8), 10 - (i % 8))
    expect(noise.perPosition()).toBe(0)
  })
})

describe('breakEven', () => {
  it('is where one more draft leaves tokens per time as they are', () => {
    const some = fc.double({ min: 0.01, max: 10, noNaN: true })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 64 }), some, some, some, (sequences, positionCost, tokens, positions) => {
        const least = breakEven({ sequences, positionCost }, { tokens, positions })
        const speed = (t: number, r: number) => t / (1 / sequences + positionCost * r)
        const before = speed(tokens, positions)
        const more = 1e-3
        expect(speed(tokens + least * more, positions + more) / before).toBeCloseTo(1, 6)
      }),
      { seed: 1 },
    )
  })
  it('is nothing where positions are free, and the tokens of a position where they are all that costs', () => {
    expect(breakEven({ sequences: 8, positionCost: 0 }, { tokens: 3, positions: 8 })).toBe(0)
    expect(breakEven({ sequences: 1, positionCost: Number.POSITIVE_INFINITY }, { tokens: 3, positions: 6 })).toBe(0.5)
  })
})
