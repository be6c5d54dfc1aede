// A linear layer by its name in the checkpoint: what parameters it has, and what it does.
import { add, div, mul } from '../graph/ops/elementwise.ts'
import { linear } from '../graph/ops/linear.ts'
import { adaptedNorms } from '../graph/ops/low-rank.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Weights } from './weights.ts'

/** Shapes of the parameters of a linear layer `inner` -> `out`. */
export const projectionShapes = (
  name: string,
  out: number,
  inner: number,
  bias = false,
): [name: string, shape: readonly number[]][] => [
  [`${name}.weight`, [out, inner]],
  ...(bias ? [[`${name}.bias`, [out]] as [string, number[]]] : []),
]

/**
 * x W^T, plus the bias where the layer has one: x [..., inner] -> [..., out]. With low-rank weights A and B
 *
 * - x W^T + gate (x A^T) B^T (LoRA; Hu et al., 2021, equation 3). Where the gate is 0 the result is that without them, bit for
 *   bit;
 * - where there is a `lora_magnitude_vector` m [out] too, m / |W + gate B A| times that, | | being the length of a row (DoRA;
 *   2402.09353, equation 5). The gate is then one number.
 */
export function project(x: Tensor, layer: Weights): Tensor {
  const weight = layer('weight')
  const bias = layer.has('bias') ? layer('bias') : undefined
  if (!layer.gate || !layer.has('lora_A.weight')) return linear(x, weight, bias)
  const [a, b] = [layer('lora_A.weight'), layer('lora_B.weight')]
  const gate = layer.gate(x)
  const low = linear(mul(linear(x, a), gate), b)
  if (!layer.has('lora_magnitude_vector')) return add(linear(x, weight, bias), low)
  if (typeof gate !== 'number') throw new Error('DoRA acts at all positions alike')
  const stretch = div(layer('lora_magnitude_vector'), adaptedNorms(weight, a, b, gate))
  const y = mul(add(linear(x, weight), low), stretch)
  return bias ? add(y, bias) : y
}
