import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkLearningRate, learningRateAt } from './schedule.ts'

describe('learningRateAt', () => {
  const shape = (options: Parameters<typeof learningRateAt>[1]) =>
    [0.05, 0.1, 0.55, 0.8, 0.9, 1].map((progress) => Number(learningRateAt(progress, options).toFixed(6)))

  it('rises and then falls as cosine, falls at the end as wsd, or stays', () => {
    const base = { lr: 2, lrMin: 1, lrWarmupRatio: 0.1, lrDecayRatio: 0.2 }
    expect(shape({ ...base, lrDecayStyle: 'cosine' })).toEqual([1, 2, 1.5, 1.116978, 1.030154, 1])
    expect(shape({ ...base, lrDecayStyle: 'wsd' })).toEqual([1, 2, 2, 2, 1.5, 1])
    expect(shape({ ...base, lrDecayStyle: 'constant' })).toEqual([1, 2, 2, 2, 2, 2])
  })

  it('stays between 0 and the peak and never rises after the warmup', () => {
    const share = fc.double({ min: 0, max: 1, noNaN: true })
    fc.assert(
      fc.property(
        fc.record({
          lrWarmupRatio: share,
          lrDecayRatio: share,
          lrMin: share,
          lrDecayStyle: fc.constantFrom('cosine' as const, 'wsd' as const, 'constant' as const),
        }),
        share,
        share,
        (options, a, b) => {
          const at = (progress: number) => learningRateAt(progress, { lr: 1, ...options })
          const [early, late] = [Math.min(a, b), Math.max(a, b)]
          expect(at(early)).toBeGreaterThanOrEqual(0)
          expect(at(early)).toBeLessThanOrEqual(1)
          if (early >= options.lrWarmupRatio) expect(at(late)).toBeLessThanOrEqual(at(early))
        },
      ),
    )
  })

  it('names the key that is out of range', () => {
    expect(() => checkLearningRate({ lr: Number.NaN })).toThrow(/lr is NaN/)
    expect(() => checkLearningRate({ lr: 1, lrMin: 2 })).toThrow(/lr_min is 2/)
    expect(() => checkLearningRate({ lr: 1, lrWarmupRatio: 1.5 })).toThrow(/lr_warmup_ratio is 1.5/)
    expect(() => checkLearningRate({ lr: 1, lrDecayRatio: -1 })).toThrow(/lr_decay_ratio is -1/)
  })
})
