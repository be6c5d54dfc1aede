// A linear layer by its name in the checkpoint: what parameters it has, and what it does.
import { add, mul } from '../graph/ops/elementwise.ts'
import { linear } from '../graph/ops/linear.ts'
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
 * x W^T, plus the bias where the layer has one, plus gate (x A^T) B^T where it has low-rank weights (LoRA; Hu et al., 2021,
 * equation 3): x [..., inner] -> [..., out]. Where the gate is 0 the result is that without them, bit for bit.
 */
export function project(x: Tensor, layer: Weights): Tensor {
  const y = linear(x, layer('weight'), layer.has('bias') ? layer('bias') : undefined)
  if (!layer.gate || !layer.has('lora_A.weight')) return y
  const low = mul(linear(x, layer('lora_A.weight')), layer.gate(x))
  return add(y, linear(low, layer('lora_B.weight')))
}
