import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { constantSchedule, parseSchedule, scheduleTokens, stageAt, wsdSchedule } from './schedule.ts'

describe('wsdSchedule', () => {
  it('grows from 1 to the row length and falls to the final block size', () => {
    const stages = wsdSchedule({ length: 512, finalBlockSize: 32, totalTokens: 1_000_000 })
    expect(stages.map((stage) => stage.blockSize)).toEqual([1, 4, 32, 64, 512, 256, 128, 64, 32])
    expect(stages.at(-1)!.tokens).toBe(250_000)
    expect(stages[4]!.tokens).toBe(300_000)
  })

  it('leaves out sizes that do not divide the row', () => {
    const stages = wsdSchedule({ length: 48, finalBlockSize: 8, totalTokens: 4800 })
    expect(stages.map((stage) => stage.blockSize)).toEqual([1, 4, 48, 24, 12, 8])
  })

  it('ends at MDLM where the final block is the row', () => {
    const stages = wsdSchedule({ length: 64, finalBlockSize: 64, totalTokens: 1000 })
    expect(stages.map((stage) => stage.blockSize)).toEqual([1, 4, 32, 64])
    expect(stages.at(-1)!.tokens).toBe(800)
  })

  it('spends exactly the budget, in whole tokens, whatever the shares', () => {
    const share = fc.double({ min: 0.01, max: 10, noNaN: true })
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 10 }),
        fc.integer({ min: 0, max: 10 }),
        fc.integer({ min: 1, max: 1e12 }),
        fc.record({ warmup: share, stable: share, decay: share }),
        (a, b, totalTokens, shares) => {
          const length = 2 ** Math.max(a, b)
          const stages = wsdSchedule({ length, finalBlockSize: 2 ** Math.min(a, b), totalTokens, shares })
          expect(scheduleTokens(stages)).toBe(totalTokens)
          for (const stage of stages) {
            expect(stage.tokens).toBeGreaterThan(0)
            expect(Number.isInteger(stage.tokens)).toBe(true)
            expect(length % stage.blockSize).toBe(0)
          }
        },
      ),
    )
  })

  it('names what is wrong', () => {
    expect(() => wsdSchedule({ length: 100, finalBlockSize: 32, totalTokens: 10 })).toThrow(/32 does not divide/)
    expect(() => wsdSchedule({ length: 64, finalBlockSize: 32, totalTokens: 0 })).toThrow(/token budget/)
    const shares = { warmup: 0, stable: 0, decay: 0 }
    expect(() => wsdSchedule({ length: 64, finalBlockSize: 32, totalTokens: 10, shares })).toThrow(/no phase/)
    expect(() =>
      wsdSchedule({ length: 64, finalBlockSize: 32, totalTokens: 10, shares: { ...shares, decay: -1 } }),
    ).toThrow(/share of decay/)
  })
})

describe('parseSchedule', () => {
  const options = { length: 128, totalTokens: 1000 }

  it('reads percentages and token counts', () => {
    expect(parseSchedule(['1:10%', '4:10%', 'L:30%', '32:50%'], options)).toEqual([
      { blockSize: 1, tokens: 100 },
      { blockSize: 4, tokens: 100 },
      { blockSize: 128, tokens: 300 },
      { blockSize: 32, tokens: 500 },
    ])
    expect(parseSchedule([' 8 : 200k', '32:1.5M'], options)).toEqual([
      { blockSize: 8, tokens: 200_000 },
      { blockSize: 32, tokens: 1_500_000 },
    ])
  })

  it('names the entry that is wrong', () => {
    expect(() => parseSchedule([], options)).toThrow(/empty/)
    expect(() => parseSchedule(['32'], options)).toThrow(/"32"/)
    expect(() => parseSchedule(['32:50%', '4:10%'], options)).toThrow(/sum to 60/)
    expect(() => parseSchedule(['32:50%', '4:500'], options)).toThrow(/mixes/)
    expect(() => parseSchedule(['33:100%'], options)).toThrow(/33 does not divide/)
    expect(() => parseSchedule(['32:0'], options)).toThrow(/token budget/)
  })
})

describe('stageAt', () => {
  it('changes stage when the tokens of the ones before are spent', () => {
    const schedule = parseSchedule(['1:100', '4:50', '8:10'], { length: 8, totalTokens: 0 })
    const sizes = [0, 99, 100, 149, 150, 159, 160, 1e9].map((tokens) => stageAt(schedule, tokens).stage.blockSize)
    expect(sizes).toEqual([1, 1, 4, 4, 8, 8, 8, 8])
    expect(stageAt(constantSchedule(8, 100), 50)).toEqual({ index: 0, stage: { blockSize: 8, tokens: 100 } })
    expect(() => stageAt([], 0)).toThrow(/no stages/)
  })
})
