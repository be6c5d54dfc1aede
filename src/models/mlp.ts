// The feed-forward part of a decoder layer, and the dense one, SwiGLU. Knows nothing about the rest of the layer.
import { swiglu } from '../graph/ops/swiglu.ts'
import type { Tensor } from '../graph/tensor.ts'
import { project, projectionShapes } from '../nn/projection.ts'
import type { Weights } from '../nn/weights.ts'
import type { MixtureLayer, Routing } from './types.ts'

export interface Mlp {
  /** Shape of every parameter, by name relative to the layer, in the order of the checkpoint. */
  parameters: readonly (readonly [name: string, shape: readonly number[]])[]
  /** Which of them no gradient reaches: they are not trained. Default: none. */
  buffers?: readonly string[]
  /** Set where it is a mixture of experts; its names are relative to the layer. */
  mixture?: MixtureLayer
  /** y [..., hidden] -> [..., hidden], with the weights of the layer. A mixture of experts reports to `onRouting`, once. */
  trace(y: Tensor, layer: Weights, onRouting: (routing: Routing) => void): Tensor
}

interface DenseMlpOptions {
  /** Default false. */
  bias?: boolean
  /** Default: those of Llama. */
  names?: { gate: string; up: string; down: string }
}

const llamaNames = { gate: 'mlp.gate_proj', up: 'mlp.up_proj', down: 'mlp.down_proj' }

/** down(silu(gate(y)) * up(y)). */
export const denseMlp = (
  hidden: number,
  intermediate: number,
  { bias = false, names: { gate, up, down } = llamaNames }: DenseMlpOptions = {},
): Mlp => ({
  parameters: [
    ...projectionShapes(gate, intermediate, hidden, bias),
    ...projectionShapes(up, intermediate, hidden, bias),
    ...projectionShapes(down, hidden, intermediate, bias),
  ],
  trace: (y, layer) => project(swiglu(project(y, layer.in(gate)), project(y, layer.in(up))), layer.in(down)),
})
