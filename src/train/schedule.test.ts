import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkLearningRate, learningRateAt } from './schedule.ts'

describe('learningRateAt', () => {
  const shape = (options: Parameters<typeof learningRateAt>[2]) =>
    [0.05, 0.1, 0.55, 0.8, 0.9, 1].map((progress) => Number(learningRateAt(progress, progress, options).toFixed(6)))

  it('rises and then falls as cosine, falls at the end as wsd, or stays', () => {
    const base = { lr: 2, lrMin: 1, lrWarmupRatio: 0.1, lrDecayRatio: 0.2 }
    expect(shape({ ...base, lrDecayStyle: 'cosine' })).toEqual([1, 2, 1.5, 1.116978, 1.030154, 1])
    expect(shape({ ...base, lrDecayStyle: 'wsd' })).toEqual([1, 2, 2, 2, 1.5, 1])
    expect(shape({ ...base, lrDecayStyle: 'constant' })).toEqual([1, 2, 2, 2, 2, 2])
  })

  const share = fc.double({ min: 0, max: 1, noNaN: true })
  const styles = fc.constantFrom('cosine' as const, 'wsd' as const, 'constant' as const)

  it('stays between 0 and the peak and never rises after the warmup', () => {
    const settings = { lrWarmupRatio: share, lrDecayRatio: share, lrMin: share, lrDecayStyle: styles }
    fc.assert(
      fc.property(fc.record(settings), fc.array(share, { minLength: 3, maxLength: 3 }), (options, shares) => {
        const [first, second, third] = shares.sort((a, b) => a - b) as [number, number, number]
        const early = learningRateAt(first, second, { lr: 1, ...options })
        const late = learningRateAt(second, third, { lr: 1, ...options })
        expect(early).toBeGreaterThanOrEqual(0)
        expect(early).toBeLessThanOrEqual(1)
        if (second >= options.lrWarmupRatio) expect(late).toBeLessThanOrEqual(early)
      }),
    )
  })

  it('is above 0 for every update, the first and the last too', () => {
    const settings = { lrWarmupRatio: share, lrDecayRatio: share, lrDecayStyle: styles }
    fc.assert(
      fc.property(fc.record(settings), fc.integer({ min: 1, max: 300 }), (options, updates) => {
        for (let i = 0; i < updates; i++)
          expect(learningRateAt(i / updates, (i + 1) / updates, { lr: 1, ...options })).toBeGreaterThan(0)
      }),
    )
  })

  it('names the key that is out of range', () => {
    expect(() => checkLearningRate({ lr: Number.NaN })).toThrow(/lr is NaN/)
    expect(() => checkLearningRate({ lr: 1, lrMin: 2 })).toThrow(/lr_min is 2/)
    expect(() => checkLearningRate({ lr: 1, lrWarmupRatio: 1.5 })).toThrow(/lr_warmup_ratio is 1.5/)
    expect(() => checkLearningRate({ lr: 1, lrDecayRatio: -1 })).toThrow(/lr_decay_ratio is -1/)
  })
})
