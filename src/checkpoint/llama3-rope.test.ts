import { expect, it } from 'vitest'
import { type Llama3RopeScaling, llama3Divisors, llama3RopeScaling } from './llama3-rope.ts'

const scaling = (factor: number, high: number, original: number): Llama3RopeScaling => ({
  rope_type: 'llama3',
  factor,
  low_freq_factor: 1,
  high_freq_factor: high,
  original_max_position_embeddings: original,
})

it.each([
  ['Llama 3.1', scaling(8, 4, 8192), 128, 500000],
  ['Llama 3.2 1B', scaling(32, 4, 8192), 64, 500000],
  ['others', scaling(16, 6, 4096), 128, 10000],
  ['a low limit of two', { ...scaling(8, 8, 8192), low_freq_factor: 2 }, 128, 500000],
] as const)('recovers settings with the same effect: %s', (_, original, headDim, theta) => {
  const divisors = llama3Divisors(original, headDim, theta)
  const found = llama3RopeScaling(Float32Array.from(divisors), headDim, theta) as Llama3RopeScaling
  // Only the ratios to low_freq_factor can be known.
  expect(found).toEqual({
    ...original,
    low_freq_factor: 1,
    high_freq_factor: original.high_freq_factor / original.low_freq_factor,
    original_max_position_embeddings: original.original_max_position_embeddings / original.low_freq_factor,
  })
})

it('leaves short wavelengths alone and stretches long ones by the factor', () => {
  // Llama 3.2 1B: pairs 14 to 18 have wavelengths of 1958, 2950, 4443, 6695 and 10089; the limits are 2048 and 8192.
  const divisors = [...llama3Divisors(scaling(32, 4, 8192), 64, 500000)]
  expect(divisors.slice(0, 15)).toEqual(new Array(15).fill(1))
  expect(divisors.slice(18)).toEqual(new Array(14).fill(32))
  const between = divisors.slice(14, 19)
  expect(between).toEqual([...between].sort((a, b) => a - b))
  expect(new Set(between).size).toBe(5)
})

it('says that there is no scaling, or that it is another', () => {
  expect(llama3RopeScaling(new Float32Array(32).fill(1), 64, 10000)).toBe('none')
  expect(llama3RopeScaling(new Float32Array(31).fill(1), 64, 10000)).toBeUndefined()
  expect(
    llama3RopeScaling(
      Float32Array.from({ length: 32 }, (_, i) => 1 + i),
      64,
      10000,
    ),
  ).toBeUndefined()
  expect(llama3RopeScaling(new Float32Array(32), 64, 10000)).toBeUndefined()
})
