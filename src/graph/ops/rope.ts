// Rotary position embedding (Su et al., 2021), rotate-half layout as in Llama: pairs are (i, i + D/2).
import { apply1, lastDim, type Operation, type Tensor } from '../tensor.ts'
import { neg } from './elementwise.ts'

interface RopeAttributes {
  heads: number
}

const ropeOperation: Operation<RopeAttributes> = {
  name: 'rope',
  infer([x, positions, cos, sin], { heads }, fail) {
    if (x.shape.length !== 3) fail('the input must be [batch, length, heads * head size]')
    if (positions.dtype !== 'int64') fail('positions must be int64')
    if (positions.shape.length !== 2 || positions.shape[0] !== x.shape[0] || positions.shape[1] !== x.shape[1])
      fail(`positions must be [${x.shape[0]}, ${x.shape[1]}]`)
    const half = cos.shape[1]
    if (typeof half !== 'number' || lastDim(x) !== heads * half * 2 || sin.shape[1] !== half)
      fail(`cos and sin must be [positions, ${lastDim(x) / heads / 2}] for ${heads} heads`)
    return [{ dtype: 'float32', shape: x.shape }]
  },
  // A rotation's transpose is the rotation by the negative angle.
  gradient({ inputs: [, positions, cos, sin], attributes, gradients: [dy] }) {
    return [
      apply1(ropeOperation, [dy as Tensor, positions, cos, neg(sin)], attributes),
      undefined,
      undefined,
      undefined,
    ]
  },
  onnx: (emit, inputs) => [emit.contrib('RotaryEmbedding', inputs)],
}

/** Rotates x [batch, length, heads * D] by its positions [batch, length] (int64); cos and sin are [positions, D/2]. */
export const rope = (x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, heads: number): Tensor =>
  apply1(ropeOperation, [x, positions, cos, sin], { heads })
