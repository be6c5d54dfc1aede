import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { philox4x32, random } from './random.ts'
import { UserError } from './types.ts'

describe('philox4x32', () => {
  // The known answers that the authors publish with Random123 for philox4x32, 10 rounds.
  test.each([
    ['00000000 00000000 00000000 00000000', '00000000 00000000', '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
    ['ffffffff ffffffff ffffffff ffffffff', 'ffffffff ffffffff', '408f276d 41c83b0e a20bc7c6 6d5451fd'],
    ['243f6a88 85a308d3 13198a2e 03707344', 'a4093822 299f31d0', 'd16cfe09 94fdcceb 5001e420 24126ea1'],
  ])('counter %s, key %s', (counter, key, expected) => {
    const [c0, c1, c2, c3] = counter.split(' ').map((word) => Number.parseInt(word, 16))
    const [k0, k1] = key.split(' ').map((word) => Number.parseInt(word, 16))
    const out = new Uint32Array(4)
    philox4x32(out, c0!, c1!, c2!, c3!, k0!, k1!)
    expect([...out].map((word) => word.toString(16).padStart(8, '0')).join(' ')).toBe(expected)
  })
})

describe('random', () => {
  test('without a stream, draws are the blocks of the seed as key and the index as counter', () => {
    const generator = random(0)
    expect([generator.uint32(), generator.uint32()]).toEqual([0x6627e8d5, 0xe169c58d])
  })

  test('the same seed and stream repeat; any difference changes the draws', () => {
    const draws = (seed: number, ...stream: number[]) => Array.from({ length: 8 }, random(seed, ...stream).uint32)
    expect(draws(7, 1, 2)).toEqual(draws(7, 1, 2))
    const different = [draws(7), draws(8), draws(7, 0), draws(7, 0, 0), draws(7, 1), draws(7, 1, 2), draws(7, 2, 1)]
    different.push(draws(2 ** 32 + 7), draws(7, 2 ** 32 + 1))
    expect(new Set(different.map((d) => d.join())).size).toBe(different.length)
  })

  test('fill gives what single draws give, whatever was drawn before', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(9), fc.nat(33), (seed, before, length) => {
        const [a, b] = [random(seed, 5), random(seed, 5)]
        for (let i = 0; i < before; i++) expect(a.normal()).toBe(b.normal())
        expect([...a.fillNormal(new Float32Array(length))]).toEqual(
          Array.from({ length }, () => Math.fround(b.normal())),
        )
        expect([...a.fillUniform(new Float32Array(length))]).toEqual(Array.from({ length }, b.uniform))
      }),
    )
  })

  test('uniform and normal have their moments', () => {
    const n = 200_000
    const moments = (values: Float32Array) => {
      const mean = values.reduce((sum, v) => sum + v, 0) / n
      return { mean, variance: values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / n }
    }
    const uniform = random(1, 1).fillUniform(new Float32Array(n))
    expect(moments(uniform).mean).toBeCloseTo(0.5, 2)
    expect(moments(uniform).variance).toBeCloseTo(1 / 12, 2)
    expect(uniform.every((u) => u >= 0 && u < 1)).toBe(true)
    const normal = moments(random(1, 2).fillNormal(new Float32Array(n)))
    expect(normal.mean).toBeCloseTo(0, 1)
    expect(normal.variance).toBeCloseTo(1, 1)
  })

  test('integer covers its range evenly and shuffle permutes', () => {
    const generator = random(3)
    const counts = new Array<number>(7).fill(0)
    for (let i = 0; i < 70_000; i++) counts[generator.integer(7)]!++
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500)
    expect(random(3).integer(1)).toBe(0)
    expect(random(3).integer(2 ** 32)).toBe(random(3).uint32())
    const items = Array.from({ length: 50 }, (_, i) => i)
    const shuffled = random(4).shuffle([...items])
    expect(shuffled).not.toEqual(items)
    expect(shuffled.toSorted((a, b) => a - b)).toEqual(items)
  })

  test('refuses seeds and ranges that are not whole numbers', () => {
    expect(() => random(0.5)).toThrow(UserError)
    expect(() => random(1, -1)).toThrow(/stream is -1/)
    expect(() => random(1).integer(0)).toThrow(RangeError)
  })
})
