import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { DecodingSettings } from '../settings.ts'
import { createStrategy } from './index.ts'

const decide = (
  confidence: number[],
  { blockSize: size, ...options }: DecodingSettings & { blockSize: number },
  step = 0,
  leading = true,
) => {
  const [open, current] = [confidence.map((_, i) => i), confidence.map(() => undefined)]
  const decide = createStrategy('threshold', options).begin()
  return decide({ step, size, open, current, leading }, { tokens: confidence.map(() => 0), confidence }).commit
}

test('all above the threshold, strictly; else the most confident, the first of equals', () => {
  expect(decide([0.5, 0.9, 0.91, 0.95], { threshold: 0.9, blockSize: 4 })).toEqual([2, 3])
  expect(decide([0.5, 0.9, 0.2, 0.9], { threshold: 0.9, blockSize: 4 })).toEqual([1])
  expect(decide([0.5, 0.4], { threshold: 0, blockSize: 4 })).toEqual([0, 1])
})

test('a block that does not lead commits only what is sure', () => {
  expect(decide([0.5, 0.9, 0.95], { threshold: 0.9, blockSize: 4 }, 0, false)).toEqual([2])
  expect(decide([0.5, 0.9], { threshold: 0.9, blockSize: 4, stepsPerBlock: 1 }, 0, false)).toEqual([])
})

test('the steps of a block share it evenly, the first taking the rest', () => {
  const options = { threshold: 1, blockSize: 8, stepsPerBlock: 3 }
  const confidence = [0.1, 0.8, 0.3, 0.7, 0.5, 0.6, 0.2, 0.4]
  expect(decide(confidence, options, 0)).toEqual([1, 3, 5])
  expect(decide(confidence, options, 1)).toEqual([1, 3, 5])
  expect(decide(confidence, options, 2)).toEqual([1, 3])
  expect(decide([0.1], options, 0)).toEqual([0])
})

test('a block is finished within its steps whatever the confidences', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 50 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 40, maxLength: 40 }),
      (blockSize, stepsPerBlock, level, confidence) => {
        const decide = createStrategy('threshold', { threshold: level, stepsPerBlock }).begin()
        let masked = Array.from({ length: blockSize }, (_, i) => i)
        let step = 0
        for (; masked.length > 0; step++) {
          const predictions = { tokens: masked, confidence: masked.map((i) => confidence[(i + step) % 40]) }
          const current = masked.map(() => undefined)
          const { commit } = decide({ step, size: blockSize, open: masked, current, leading: true }, predictions)
          expect(commit.length).toBeGreaterThan(0)
          expect([...commit].sort((a, b) => a - b)).toEqual(commit)
          masked = masked.filter((_, i) => !commit.includes(i))
        }
        expect(step).toBeLessThanOrEqual(Math.min(stepsPerBlock, blockSize))
      },
    ),
  )
})
