// Tables of rotary angles, with the scalings that checkpoints ask for.

import { ConfigError } from '../core/types.ts'
import { constant } from '../graph/ops/input.ts'
import { ropeAngles } from '../graph/ops/rope.ts'
import type { Tensor } from '../graph/tensor.ts'

export interface RopeScaling {
  type: 'default' | 'linear' | 'llama3'
  factor: number
  lowFreqFactor: number
  highFreqFactor: number
  originalMaxPositionEmbeddings: number
}

export interface RopeConfig {
  theta: number
  scaling: RopeScaling
  /** The share of each head's dimensions that is rotated, the first ones. */
  partialRotaryFactor: number
}

const number = (value: unknown, key: string): number => {
  if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0)
    throw new ConfigError(`${key} must be a positive number, got ${JSON.stringify(value)}`)
  return value
}

const object = (value: unknown, key: string): Record<string, unknown> | undefined => {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'object' || Array.isArray(value))
    throw new ConfigError(`${key} must be an object, got ${JSON.stringify(value)}`)
  return value as Record<string, unknown>
}

/** Reads `rope_theta`, `partial_rotary_factor` and `rope_scaling`, or the newer `rope_parameters`, of a Hugging Face config. */
export function ropeConfig(config: Record<string, unknown>): RopeConfig {
  const parameters = object(config.rope_parameters, 'rope_parameters') ?? {}
  const scaling = object(config.rope_scaling, 'rope_scaling') ?? parameters
  for (const [name, given] of [['rope_parameters', parameters] as const, ['rope_scaling', scaling] as const])
    if (Object.values(given).some((value) => typeof value === 'object' && value !== null && !Array.isArray(value)))
      throw new ConfigError(
        `${name} differs between kinds of layers (${Object.keys(given).join(', ')}), which is not supported`,
      )
  const theta = number(config.rope_theta ?? parameters.rope_theta ?? 10000, 'rope_theta')
  const partial = config.partial_rotary_factor ?? parameters.partial_rotary_factor ?? 1
  const type = scaling.rope_type ?? scaling.type ?? 'default'
  if (type !== 'default' && type !== 'linear' && type !== 'llama3')
    throw new ConfigError(`rope_scaling of type ${JSON.stringify(type)} is not supported (default, linear, llama3)`)
  const read = (key: string, wanted: boolean) => (wanted ? number(scaling[key], `rope_scaling.${key}`) : 1)
  return {
    theta,
    partialRotaryFactor: number(partial, 'partial_rotary_factor'),
    scaling: {
      type,
      factor: read('factor', type !== 'default'),
      lowFreqFactor: read('low_freq_factor', type === 'llama3'),
      highFreqFactor: read('high_freq_factor', type === 'llama3'),
      originalMaxPositionEmbeddings: read('original_max_position_embeddings', type === 'llama3'),
    },
  }
}

/** theta^(-2i/D), i < D/2, of D dimensions that are rotated, scaled. `llama3` follows the Llama 3.1 release: long wavelengths are stretched, short kept. */
export function inverseFrequencies({ theta, scaling }: RopeConfig, rotaryDim: number): Float64Array {
  return Float64Array.from({ length: rotaryDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / rotaryDim)
    if (scaling.type === 'default') return frequency
    if (scaling.type === 'linear') return frequency / scaling.factor
    const wavelength = (2 * Math.PI) / frequency
    const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositionEmbeddings: original } = scaling
    if (wavelength < original / high) return frequency
    if (wavelength > original / low) return frequency / factor
    const smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * (frequency / factor) + smooth * frequency
  })
}

/** cos and sin of every position, for D dimensions that are rotated: two constants [positions, D/2]. */
export function ropeTables(config: RopeConfig, rotaryDim: number, positions: number): { cos: Tensor; sin: Tensor } {
  const frequencies = inverseFrequencies(config, rotaryDim).map(Math.fround)
  const half = frequencies.length
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let p = 0; p < positions; p++)
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(p * frequencies[i])
      cos[p * half + i] = Math.cos(angle)
      sin[p * half + i] = Math.sin(angle)
    }
  const table = (data: Float32Array) => constant({ dtype: 'float32', shape: [positions, half], data })
  return { cos: table(cos), sin: table(sin) }
}

/** The same for these positions alone, [batch, length]: no table as long as a context. `index` is where each position's row is. */
export const ropeRows = (config: RopeConfig, rotaryDim: number, positions: Tensor) =>
  ropeAngles(positions, frequencies(config, rotaryDim))

const frequencies = (config: RopeConfig, rotaryDim: number): Tensor =>
  constant({ dtype: 'float32', shape: [rotaryDim / 2], data: Float32Array.from(inverseFrequencies(config, rotaryDim)) })
