// Recovers Llama 3's rope_scaling settings from the frequency divisors that a GGUF file stores in their place.
// Knows nothing about files.

/** `rope_scaling` of a Hugging Face config, type llama3. */
export interface Llama3RopeScaling extends Record<string, unknown> {
  rope_type: 'llama3'
  factor: number
  low_freq_factor: number
  high_freq_factor: number
  original_max_position_embeddings: number
}

/** What llama3 scaling divides each inverse frequency by; Hugging Face's `_compute_llama3_parameters`. */
export const llama3Divisors = (scaling: Llama3RopeScaling, headDim: number, theta: number): Float64Array =>
  Float64Array.from({ length: headDim / 2 }, (_, i) => {
    const { factor, low_freq_factor: low, high_freq_factor: high } = scaling
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / headDim)
    const turns = scaling.original_max_position_embeddings / wavelength
    if (turns > high) return 1
    if (turns < low) return factor
    const smooth = (turns - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)
  })

/** Float32 leaves seven digits; rope_theta itself was rounded too. */
const TOLERANCE = 1e-4

const matches = (scaling: Llama3RopeScaling, divisors: Float32Array, headDim: number, theta: number): boolean =>
  llama3Divisors(scaling, headDim, theta).every((value, i) => Math.abs(value / divisors[i]! - 1) < TOLERANCE)

/**
 * The settings that give `divisors` (one for each pair of `headDim`); 'none' where all are 1; undefined where no llama3
 * scaling gives them. Only original_max_position_embeddings / low_freq_factor and / high_freq_factor can be
 * recovered, so low_freq_factor is taken as 1, as in every published Llama 3 model.
 */
export const llama3RopeScaling = (
  divisors: Float32Array,
  headDim: number,
  theta: number,
): Llama3RopeScaling | 'none' | undefined => {
  if (divisors.length !== headDim / 2 || divisors.some((value) => !(value >= 1))) return undefined
  const factor = divisors.reduce((a, b) => Math.max(a, b), 1)
  if (factor === 1) return 'none'
  const scaling = (original: number, high: number): Llama3RopeScaling => ({
    rope_type: 'llama3',
    factor: Number(factor.toPrecision(6)),
    low_freq_factor: 1,
    high_freq_factor: high,
    original_max_position_embeddings: original,
  })
  const candidates = [scaling(8192, 4)]
  // Between the two limits `smooth` is linear in the frequency: two points on that line give both settings.
  const points = Array.from(divisors, (divisor, i) => ({
    smooth: (1 / divisor - 1 / factor) / (1 - 1 / factor),
    frequency: theta ** ((-2 * i) / headDim) / (2 * Math.PI),
  })).filter(({ smooth }) => smooth > 1e-4 && smooth < 1 - 1e-4)
  const first = points[0]
  const last = points.at(-1)
  if (first !== undefined && last !== undefined && first !== last) {
    const slope = (first.smooth - last.smooth) / (first.frequency - last.frequency)
    // smooth = (original * frequency - 1) / (high - 1)
    const high = 1 + 1 / (slope * first.frequency - first.smooth)
    const original = slope * (high - 1)
    const snap = (value: number): number =>
      Math.abs(Math.round(value) / value - 1) < 1e-3 ? Math.round(value) : Number(value.toPrecision(5))
    candidates.push(scaling(Math.round(original), snap(high)))
  }
  return candidates.find((candidate) => matches(candidate, divisors, headDim, theta))
}
