// SwiGLU (Shazeer, 2020): silu(gate) * up, with silu(x) = x * sigmoid(x).
import { none } from '../attributes.ts'
import { defineOperation } from '../registry.ts'
import { sameShape } from '../shape.ts'
import { apply, type Tensor } from '../tensor.ts'
import { add, mul, sub } from './elementwise.ts'

const swigluOperation = defineOperation({
  name: 'swiglu',
  inputs: ['gate', 'up'],
  outputs: ['y', 'sigmoid'],
  attributes: none,
  infer([gate, up], _, fail) {
    if (!sameShape(gate.shape, up.shape)) fail('gate and up must have the same shape')
    const type = { dtype: 'float32' as const, shape: gate.shape }
    return [type, type]
  },
  // s = sigmoid(gate). d gate = dy up s (1 + gate (1 - s)) = s (dy up - dy y) + dy y; d up = dy silu(gate) = dy gate s.
  gradient({ inputs: [gate, up], outputs: [y, s], gradients: [dy] }) {
    const d = dy as Tensor
    const p = mul(d, y)
    return [add(mul(s, sub(mul(d, up), p)), p), mul(mul(d, gate), s)]
  },
  onnx(emit, [gate, up]) {
    const s = emit.op('Sigmoid', [gate])
    return [emit.op('Mul', [emit.op('Mul', [gate, s]), up]), s]
  },
})

/** silu(gate) * up, elementwise. */
export const swiglu = (gate: Tensor, up: Tensor): Tensor => apply(swigluOperation, [gate, up], null)[0]
