// Rotary angles: the scalings of checkpoints, and the configs that say them.
import { describe, expect, it } from 'vitest'
import type { TensorData } from '../core/types.ts'
import { input } from '../graph/ops/input.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { inverseFrequencies, ropeConfig, ropeRows, ropeTables } from './rope.ts'

const llama3 = {
  rope_theta: 500000,
  rope_scaling: {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  },
}

function expectFrequencies(config: Record<string, unknown>, expected: number[]) {
  const actual = inverseFrequencies(ropeConfig(config), expected.length * 2)
  expected.forEach((value, i) => {
    expect(Math.abs(actual[i] / value - 1)).toBeLessThan(1e-6)
  })
}

describe('inverse frequencies', () => {
  it('without scaling are powers of theta', () => {
    expectFrequencies({}, [1, 0.1, 0.01, 0.001])
    expectFrequencies({ rope_theta: 16 }, [1, 0.5, 0.25, 0.125])
    expectFrequencies({ rope_scaling: null, rope_theta: 16 }, [1, 0.5, 0.25, 0.125])
  })

  // Expected values of the scaled ones: transformers 5, head size 16.
  it('of Llama 3: short wavelengths stay, long ones are stretched, with a passage between', () => {
    const expected = [1, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022, 3.42810235e-5, 6.64786967e-6]
    expectFrequencies(llama3, [...expected, 1.28917316e-6])
  })

  it('of linear scaling are divided by the factor', () => {
    expectFrequencies(
      { rope_scaling: { type: 'linear', factor: 4 } },
      [0.25, 0.079056941, 0.025, 0.00790569466, 0.0025, 0.000790569466, 0.00025, 7.90569466e-5],
    )
  })

  it('may be said by rope_parameters, as newer configs do', () => {
    const { rope_theta, rope_scaling } = llama3
    expect(ropeConfig({ rope_parameters: { rope_theta, ...rope_scaling } })).toEqual(ropeConfig(llama3))
  })
})

describe('a config that makes no sense names the key', () => {
  const bad: [Record<string, unknown>, string][] = [
    [{ rope_theta: 'x' }, 'rope_theta must be a positive number, got "x"'],
    [{ partial_rotary_factor: 0 }, 'partial_rotary_factor must be a positive number, got 0'],
    [{ rope_theta: -1 }, 'rope_theta must be a positive number, got -1'],
    [{ rope_scaling: 'linear' }, 'rope_scaling must be an object, got "linear"'],
    [{ rope_parameters: [1] }, 'rope_parameters must be an object, got [1]'],
    [{ rope_scaling: { rope_type: 'yarn' } }, 'rope_scaling of type "yarn" is not supported (default, linear, llama3)'],
    [{ rope_scaling: { type: 'linear' } }, 'rope_scaling.factor must be a positive number, got undefined'],
    [
      { rope_scaling: { ...llama3.rope_scaling, high_freq_factor: 0 } },
      'rope_scaling.high_freq_factor must be a positive number, got 0',
    ],
  ]
  for (const [config, message] of bad)
    it(message, () => {
      expect(() => ropeConfig(config)).toThrow(`config.json: ${message}`)
    })
})

it('tables hold cos and sin of position times frequency', () => {
  const { cos, sin } = ropeTables(ropeConfig({ rope_theta: 16 }), 4, 3)
  const values = (tensor: typeof cos) => tensor.node.attributes as TensorData
  expect(values(cos).shape).toEqual([3, 2])
  const angles = [0, 0, 1, 0.25, 2, 0.5]
  expect(values(cos).data).toEqual(Float32Array.from(angles, Math.cos))
  expect(values(sin).data).toEqual(Float32Array.from(angles, Math.sin))
})

it('rows hold what the tables hold at these positions', async () => {
  const config = ropeConfig({ rope_theta: 500_000 })
  const positions = [
    [0, 3, 1],
    [131_071, 8191, 77],
  ]
  const index: TensorData = { dtype: 'int64', shape: [2, 3], data: BigInt64Array.from(positions.flat(), BigInt) }
  const rows = ropeRows(config, 64, input('positions', 'int64', ['B', 'T']))
  const executor = createExecutor({ threads: 1 })
  const session = await executor.load({ name: 'rows', outputs: rows })
  const result = await session.run({ positions: index }, { cos: null, sin: null, index: null })
  await executor.dispose()
  expect(result.index.shape).toEqual([2, 3])
  const frequencies = inverseFrequencies(config, 64).map(Math.fround)
  for (const [place, position] of positions.flat().entries()) {
    const row = 32 * Number((result.index.data as BigInt64Array)[place])
    for (const [i, frequency] of frequencies.entries()) {
      const angle = Math.fround(position * frequency)
      expect(Math.abs((result.cos.data as Float32Array)[row + i] - Math.cos(angle))).toBeLessThan(2e-7)
      expect(Math.abs((result.sin.data as Float32Array)[row + i] - Math.sin(angle))).toBeLessThan(2e-7)
    }
  }
})

it('settings that differ between kinds of layers are refused by name, not passed over', () => {
  const each = { full_attention: { rope_theta: 1e6 }, sliding_attention: { rope_theta: 1e4 } }
  expect(() => ropeConfig({ rope_parameters: each })).toThrow(
    /rope_parameters differs between .*full_attention, sliding/,
  )
})
