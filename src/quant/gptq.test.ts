// Compensated rounding: its factor against the definition, and what it is for.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { random } from '../core/random.ts'
import type { QuantizedParameter } from '../core/types.ts'
import { inverseFactor, roundCompensated } from './gptq.ts'
import { dequantize, emptyQuantized } from './layout.ts'
import { roundToNearest } from './round.ts'

/** Inputs [count, width] whose features depend on each other, and the sum of x x^T. */
function inputs(seed: number, count: number, width: number) {
  const noise = random(seed).fillNormal(new Float32Array(count * width))
  const x = noise.map(
    (value, i) => value + (i % width > 0 ? 1.5 * noise[i - 1] : 0) + (i % width > 1 ? noise[i - 2] : 0),
  )
  const gram = new Float32Array(width * width)
  for (let row = 0; row < count; row++)
    for (let i = 0; i < width; i++)
      for (let j = 0; j < width; j++) gram[i * width + j] += x[row * width + i] * x[row * width + j]
  return { x, gram }
}

describe('the factor', () => {
  it('is upper triangular, and that of the inverse of the damped sum', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 24 }), fc.integer({ min: 0, max: 40 }), fc.nat(), (n, count, seed) => {
        const { gram } = inputs(seed, count, n)
        const u = inverseFactor(gram, n)
        const trace = gram.reduce((sum, value, i) => sum + (i % (n + 1) === 0 ? value : 0), 0)
        const damping = (0.01 * trace) / n || 1
        // U (gram + damping) U^T = 1.
        for (let a = 0; a < n; a++)
          for (let b = 0; b < n; b++) {
            if (b < a) expect(u[a * n + b]).toBe(0)
            let sum = 0
            for (let i = 0; i < n; i++)
              for (let j = 0; j < n; j++)
                sum += u[a * n + i] * (gram[i * n + j] + (i === j ? damping : 0)) * u[b * n + j]
            expect(sum).toBeCloseTo(a === b ? 1 : 0, 3)
          }
      }),
      { numRuns: 30 },
    )
  })
})

describe('rounding', () => {
  const [out, width, count] = [12, 96, 400]
  const shape = [out, width]
  const values = random(9).fillNormal(new Float32Array(out * width))
  const { x, gram } = inputs(4, count, width)

  /** Sum of squares of what changes in the products with the inputs. */
  function change(parameter: QuantizedParameter): number {
    const rounded = dequantize(parameter)
    let total = 0
    for (let row = 0; row < count; row++)
      for (let column = 0; column < out; column++) {
        let difference = 0
        for (let k = 0; k < width; k++)
          difference += x[row * width + k] * (rounded[column * width + k] - values[column * width + k])
        total += difference ** 2
      }
    return total
  }

  it.each([
    { bits: 4, blockSize: 32, asymmetric: false },
    { bits: 4, blockSize: 16, asymmetric: true },
    { bits: 4, blockSize: 32, asymmetric: false, offsets: true },
    { bits: 8, blockSize: 32, asymmetric: true },
  ] as const)('changes the products less than the nearest values do: %o', (format) => {
    const compensated = roundCompensated(shape, values, format, inverseFactor(gram, width))
    expect(change(compensated)).toBeLessThan(0.7 * change(roundToNearest(shape, values, format)))
  })

  it('changes nothing that was rounded before', () => {
    for (const format of [
      { bits: 4, blockSize: 32, asymmetric: false },
      { bits: 4, blockSize: 32, asymmetric: false, offsets: true },
    ] as const) {
      // Scales and offsets in half precision, as in ggml's blocks: no value of the grid is rounded.
      const stored = emptyQuantized(shape, format)
      const draw = random(2)
      const half = () => (1 + draw.integer(1024) / 1024) / 16
      for (let i = 0; i < stored.packed.length; i++) stored.packed[i] = draw.integer(256)
      for (let i = 0; i < stored.scales.length; i++) stored.scales[i] = half()
      if (stored.offsets) for (let i = 0; i < stored.offsets.length; i++) stored.offsets[i] = -8 * half()
      const grid = dequantize(stored)
      const again = dequantize(roundCompensated(shape, grid, format, inverseFactor(gram, width)))
      expect(again.filter((value, i) => value !== grid[i])).toHaveLength(0)
    }
  })

  it('is rounding to nearest where the inputs are independent', () => {
    // In 8 bits, where the grid does not depend on what counts how much.
    const format = { bits: 8, blockSize: 16, asymmetric: true } as const
    const identity = new Float32Array(width * width)
    for (let i = 0; i < width; i++) identity[i * width + i] = 3
    expect(roundCompensated(shape, values, format, inverseFactor(identity, width))).toEqual(
      roundToNearest(shape, values, format),
    )
  })
})
