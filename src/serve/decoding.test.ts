import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type NameOf, SettingError, UserError } from '../core/types.ts'
import { samplingOf, seedOf } from './decoding.ts'
import { asReported, type RequestError } from './worker/errors.ts'

test('seeds of 64 bits: the engine gets different ones for neighbours and for choices', () => {
  const seed = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(Number)
  fc.assert(
    fc.property(seed, fc.integer({ min: 1, max: 2 ** 32 }), fc.integer({ min: 0, max: 127 }), (a, distance, index) => {
      const b = a + distance
      if (a !== b) expect(seedOf(a, 0)).not.toBe(seedOf(b, 0))
      const engine = seedOf(a, index)
      expect(Number.isSafeInteger(engine) && engine >= 0).toBe(true)
      expect(seedOf(a, index)).toBe(engine)
      if (index > 0) expect(engine).not.toBe(seedOf(a + index, 0))
    }),
  )
  expect([0, 5, 2 ** 32 + 1].map((given) => seedOf(given, 0))).toEqual([0, 5, 2 ** 32 + 1])
  expect(new Set(Array.from({ length: 128 }, (_, index) => seedOf(-1, index))).size).toBe(128)
})

test('without a temperature nothing chooses what is drawn from', () => {
  const fields = { top_p: 0.5, top_k: 4, min_p: 0.1, seed: 1 }
  expect(samplingOf({ ...fields, temperature: 0 }, 0)).toEqual({ seed: 1 })
  expect(samplingOf({ ...fields, temperature: 1, top_p: 0, top_k: -1 }, 0)).toEqual({
    ...{ seed: 1, temperature: 1, topP: 1e-9, minP: 0.1 },
  })
  const unmask = { unmasking: true, threshold: 0.5, tokens_per_step: 3 }
  expect(samplingOf({ seed: 1, unmask }, 0)).toEqual({ seed: 1, threshold: 0.5, tokensPerStep: 3 })
})

test('the engine complains in the names of the API', () => {
  const reported = (error: Error) => {
    const { message, param } = asReported(error, 'prompt') as RequestError
    return { message, param }
  }
  expect(reported(new SettingError('logitBias', 'has the token id 9'))).toEqual({
    message: 'logit_bias: has the token id 9',
    param: 'logit_bias',
  })
  const reads = (nameOf: NameOf) => `the strategy fixed reads ${nameOf('tokensPerStep')}`
  expect(reported(new SettingError(['lowThreshold', 'factor'], reads))).toEqual({
    message: 'unmask.low_threshold, unmask.factor: the strategy fixed reads unmask.tokens_per_step',
    param: 'unmask.low_threshold',
  })
  expect(reported(new UserError('of 12 tokens, SmolLM2 has maxPositions'))).toMatchObject({ param: 'prompt' })
})
