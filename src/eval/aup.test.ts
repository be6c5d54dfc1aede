import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { accuracyUnderParallelism, paretoFront } from './aup.ts'

describe('accuracy under parallelism', () => {
  it('is the area under the score where nothing is lost', () => {
    const points = [
      { tpf: 1, score: 0.8 },
      { tpf: 3, score: 0.8 },
      { tpf: 6, score: 0.8 },
    ]
    expect(accuracyUnderParallelism(points, 0.8)).toBeCloseTo(6 * 80)
  })

  it('weighs what is lost, and leaves out points that lose more than five points', () => {
    const weight = Math.exp(-3 * (1 - 0.78 / 0.8))
    const points = [
      { tpf: 5, score: 0.7 },
      { tpf: 4, score: 0.78 },
      { tpf: 2, score: 0.8 },
    ]
    expect(accuracyUnderParallelism(points, 0.8)).toBeCloseTo(2 * 80 + (2 * (80 + 78 * weight)) / 2)
  })

  it('is that score where there is one point, and nothing where there is none', () => {
    expect(accuracyUnderParallelism([{ tpf: 2, score: 0.5 }], 1)).toBeCloseTo(100)
    expect(accuracyUnderParallelism([], 1)).toBeNaN()
  })
})

describe('the front', () => {
  it('holds exactly the points that none beats', () => {
    const point = fc.record({ speed: fc.integer({ min: 0, max: 5 }), score: fc.integer({ min: 0, max: 5 }) })
    fc.assert(
      fc.property(fc.array(point, { maxLength: 20 }), (points) => {
        const front = paretoFront(points)
        const beats = (a: (typeof points)[number], b: (typeof points)[number]) =>
          a.speed >= b.speed && a.score >= b.score && (a.speed > b.speed || a.score > b.score)
        for (const i of front) expect(points.some((other) => beats(other, points[i]))).toBe(false)
        for (const one of points)
          if (!points.some((other) => beats(other, one)))
            expect(front.some((i) => points[i].speed === one.speed && points[i].score === one.score)).toBe(true)
        const speeds = front.map((i) => points[i].speed)
        expect(speeds).toEqual([...new Set(speeds)].sort((a, b) => a - b))
      }),
    )
  })
})
