// What low-rank weights make of a matrix, where a product with both is not enough.
import * as z from 'zod'
import { defineOperation } from '../registry.ts'
import { sameShape } from '../shape.ts'
import { apply1, type Tensor } from '../tensor.ts'
import { emitFloatMatrix, matrixStorage, storedMatrix } from './quantized.ts'

const normsOperation = defineOperation({
  name: 'adaptedNorms',
  inputs: ['a', 'b', 'matrix...'],
  outputs: ['norms'],
  attributes: z.strictObject({ scale: z.number(), matrix: storedMatrix }),
  infer([a, b], { matrix: { out } }, fail) {
    if (!sameShape(b.shape, [out, a.shape[0]])) fail(`b must be [${out}, ${a.shape[0]}]`)
    return [{ dtype: 'float32', shape: [out] }]
  },
  gradient: ({ inputs }) => inputs.map(() => undefined),
  onnx(emit, [a, b, ...stored], { scale, matrix }) {
    const weight = emitFloatMatrix(emit, stored, matrix, b)
    const sum = emit.op('Gemm', [b, a, weight], { alpha: { float: scale } })
    return [emit.op('ReduceL2', [sum, emit.ints([1])], { keepdims: 0 })]
  },
})

/**
 * Lengths of the rows of W + scale B A, [out], for W [out, in] in float32 or quantised, A [r, in] and B [out, r]. Gradients take
 * them for constants, as DoRA (2402.09353, section 4.3) and PEFT do.
 */
export function adaptedNorms(weight: Tensor, a: Tensor, b: Tensor, scale: number): Tensor {
  const { tensors, matrix } = matrixStorage(weight)
  return apply1(normsOperation, [a, b, ...tensors], { scale, matrix })
}
