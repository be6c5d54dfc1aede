// Products with matrices in float16, which devices do faster and in half the memory: the input is rounded to float16, the
// result is widened again, and everything around stays float32. Inference only.

import { ONNX_TYPE } from '../../core/element-types.ts'
import { none } from '../attributes.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { overRows } from '../onnx/products.ts'
import { defineOperation } from '../registry.ts'
import { apply1, type Tensor } from '../tensor.ts'

const halfLinearOperation = defineOperation({
  name: 'halfLinear',
  inputs: ['x', 'weight', 'bias?'],
  outputs: ['y'],
  attributes: none,
  infer([x, weight, bias], _, fail) {
    if (x.dtype !== 'float32') fail('the input must be float32')
    if (weight.shape.length !== 2) fail('the weight must be [out, in]')
    const last = x.shape[x.shape.length - 1]
    if (last !== weight.shape[1]) fail(`the input's last size ${last} is not the weight's ${weight.shape[1]}`)
    if (bias && bias.dtype !== 'float32') fail('the bias must be float32')
    return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), weight.shape[0]] }]
  },
  onnx(emit, [x, weight, bias], _, node) {
    const [{ shape }, { shape: matrix }] = node.inputs
    const y = overRows(emit, { name: x, shape }, Number(matrix[0]), (rows) => emitHalfLinear(emit, rows, weight))
    return [bias ? emit.op('Add', [y, bias]) : y]
  },
})

/** `linear` where the weight is float16; undefined where it is not. */
export const halfLinear = (x: Tensor, weight: Tensor, bias: Tensor | undefined): Tensor | undefined =>
  weight.dtype === 'float16' ? apply1(halfLinearOperation, bias ? [x, weight, bias] : [x, weight], null) : undefined

/** x W^T for x [n, in] in float32 and W [out, in] in float16. Gemm is the product with W^T that WebGPU has a kernel for too. */
export function emitHalfLinear(emit: Emitter, x: string, weight: string): string {
  const y = emit.op('Gemm', [emit.op('Cast', [x], { to: ONNX_TYPE.float16 }), weight], { transB: 1 })
  return emit.op('Cast', [y], { to: ONNX_TYPE.float32 })
}
