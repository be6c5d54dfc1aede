// A linear layer by its name in the checkpoint: what parameters it has, and what it does.
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

/** x W^T, plus the bias where the layer has one: x [..., inner] -> [..., out]. */
export const project = (x: Tensor, layer: Weights): Tensor =>
  linear(x, layer('weight'), layer.has('bias') ? layer('bias') : undefined)
