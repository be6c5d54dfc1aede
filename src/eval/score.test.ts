import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { accuracy, pairedDifference, scoreTasks, type TaskOutput, throughput } from './score.ts'

describe('accuracy', () => {
  it('gives the Wilson interval', () => {
    // Newcombe (1998), table I: 81 of 263 and 0 of 20.
    expect(accuracy(81, 263).low).toBeCloseTo(0.2553, 4)
    expect(accuracy(81, 263).high).toBeCloseTo(0.3662, 4)
    expect(accuracy(0, 20)).toMatchObject({ accuracy: 0, low: 0 })
    expect(accuracy(0, 20).high).toBeCloseTo(0.1611, 4)
  })

  it('encloses the share and narrows with more rows', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), fc.double({ min: 0, max: 1, noNaN: true }), (rows, share) => {
        const few = accuracy(Math.floor(rows * share), rows)
        const many = accuracy(few.correct * 10, rows * 10)
        expect(few.low).toBeLessThanOrEqual(few.accuracy)
        expect(few.high).toBeGreaterThanOrEqual(few.accuracy)
        expect(many.high - many.low).toBeLessThan(few.high - few.low)
      }),
    )
  })

  it('refuses what cannot be a count', () => {
    expect(() => accuracy(3, 2)).toThrow('3 right answers of 2')
  })
})

const output = (over: Partial<TaskOutput>): TaskOutput => ({
  task: 'reverse',
  prompt: 'reverse(abcd)=',
  output: 'dcba',
  tokens: 5,
  forwards: 2,
  seconds: 0.5,
  ...over,
})

describe('throughput', () => {
  it('divides sums', () => {
    expect(throughput([output({}), output({ tokens: 15, forwards: 3, seconds: 1.5 })])).toEqual({
      tokens: 20,
      forwards: 5,
      seconds: 2,
      tokensPerForward: 4,
      tokensPerSecond: 10,
    })
  })

  it('has no ratio without forwards', () => {
    expect(throughput([]).tokensPerForward).toBeNaN()
  })
})

describe('scoreTasks', () => {
  it('scores each task and all rows', () => {
    const scores = scoreTasks([
      output({}),
      output({ output: 'dcb' }),
      output({ task: 'sort', prompt: 'sort(201)=', output: '012', tokens: 4, forwards: 1 }),
    ])
    expect(scores.tasks.map(({ task, score }) => [task, score.correct, score.rows])).toEqual([
      ['reverse', 1, 2],
      ['sort', 1, 1],
    ])
    expect(scores.all).toMatchObject({ correct: 2, rows: 3, tokens: 14, forwards: 5 })
  })
})

describe('pairedDifference', () => {
  it('is the difference of the shares', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.boolean()), { minLength: 1 }), (pairs) => {
        const a = pairs.map(([first]) => first)
        const b = pairs.map(([, second]) => second)
        const share = (results: boolean[]) => results.filter(Boolean).length / results.length
        const { difference, low, high } = pairedDifference(a, b)
        expect(difference).toBeCloseTo(share(b) - share(a), 12)
        expect(low).toBeLessThanOrEqual(difference)
        expect(high).toBeGreaterThanOrEqual(difference)
      }),
    )
  })

  it('has no width where both agree everywhere', () => {
    expect(pairedDifference([true, false], [true, false])).toEqual({ difference: 0, low: 0, high: 0 })
  })

  it('refuses unpaired results', () => {
    expect(() => pairedDifference([true], [])).toThrow('cannot pair 1 results with 0')
  })
})
