// Rotary position embedding (Su et al., 2021), rotate-half layout as in Llama: pairs are (i, i + R/2) of the first R
// dimensions of each head, which are all of them or, with partial rotation, fewer.
import * as z from 'zod'
import { ONNX_TYPE } from '../../core/element-types.ts'
import { count, none } from '../attributes.ts'
import { defineOperation } from '../registry.ts'
import { product } from '../shape.ts'
import { apply, apply1, lastDim, type Operation, type Tensor } from '../tensor.ts'
import { neg } from './elementwise.ts'

const ropeAttributes = z.strictObject({ heads: count })

const ropeOperation: Operation<z.infer<typeof ropeAttributes>> = defineOperation({
  name: 'rope',
  inputs: ['x', 'positions', 'cos', 'sin'],
  outputs: ['y'],
  attributes: ropeAttributes,
  infer([x, positions, cos, sin], { heads }, fail) {
    if (x.shape.length !== 3) fail('the input must be [batch, length, heads * head size]')
    if (positions.dtype !== 'int64') fail('positions must be int64')
    if (positions.shape.length !== 2 || positions.shape[0] !== x.shape[0] || positions.shape[1] !== x.shape[1])
      fail(`positions must be [${x.shape[0]}, ${x.shape[1]}]`)
    const half = cos.shape[1]
    if (lastDim(x) % heads !== 0) fail(`${heads} heads do not divide the width`)
    if (typeof half !== 'number' || lastDim(x) < heads * half * 2 || sin.shape[1] !== half)
      fail(`cos and sin must be [positions, R/2] with R up to ${lastDim(x) / heads} for ${heads} heads`)
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
  onnx(emit, inputs, { heads }, node) {
    const [x, , cos] = node.inputs
    const rotated = 2 * lastDim(cos)
    const partial = rotated < lastDim(x) / heads
    return [emit.contrib('RotaryEmbedding', inputs, partial ? { num_heads: heads, rotary_embedding_dim: rotated } : {})]
  },
})

const anglesOperation = defineOperation({
  name: 'ropeAngles',
  inputs: ['positions', 'frequencies'],
  outputs: ['cos', 'sin', 'index'],
  attributes: none,
  infer([positions, frequencies], _, fail) {
    if (positions.dtype !== 'int64' || positions.shape.length !== 2) fail('positions must be int64 [batch, length]')
    if (frequencies.shape.length !== 1) fail('there must be one frequency per pair')
    const table = { dtype: 'float32' as const, shape: [product(positions.shape), frequencies.shape[0]] }
    return [table, table, { dtype: 'int64', shape: positions.shape }]
  },
  onnx(emit, [positions, frequencies]) {
    const flat = emit.op('Cast', [emit.op('Reshape', [positions, emit.ints([-1, 1])])], { to: ONNX_TYPE.float32 })
    const angles = emit.op('Mul', [flat, frequencies])
    const rows = emit.op('Range', [emit.int(0), emit.op('Size', [positions]), emit.int(1)])
    const index = emit.op('Reshape', [rows, emit.op('Shape', [positions])])
    return [emit.op('Cos', [angles]), emit.op('Sin', [angles]), index]
  },
})

/**
 * Tables of cos and sin [batch * length, R/2] for these positions alone, [batch, length] int64, and the index of each
 * position's row. frequencies [R/2]: the angle of a pair at position 1.
 */
export function ropeAngles(positions: Tensor, frequencies: Tensor): { cos: Tensor; sin: Tensor; index: Tensor } {
  const [cos, sin, index] = apply(anglesOperation, [positions, frequencies], null)
  return { cos, sin, index }
}

/** Rotates x [batch, length, heads * D] by its positions [batch, length] (int64); cos and sin are [positions, R/2]. */
export const rope = (x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, heads: number): Tensor =>
  apply1(ropeOperation, [x, positions, cos, sin], { heads })
