// RMSNorm (Zhang and Sennrich, 2019): y = w * x / sqrt(mean(x^2) + eps), over the last axis.
import * as z from 'zod'
import { defineOperation } from '../registry.ts'
import { product } from '../shape.ts'
import { apply, apply1, lastDim, type Tensor } from '../tensor.ts'
import { mul, sub } from './elementwise.ts'
import { reshape } from './layout.ts'
import { matmul } from './linear.ts'

const rmsNormOperation = defineOperation({
  name: 'rmsNorm',
  inputs: ['x', 'weight'],
  outputs: ['y'],
  attributes: z.strictObject({ epsilon: z.number() }),
  infer([x, weight], _, fail) {
    const width = x.shape[x.shape.length - 1]
    if (weight.shape.length !== 1 || weight.shape[0] !== width) fail(`the weight must be [${width}]`)
    return [{ dtype: 'float32', shape: x.shape }]
  },
  gradient({ inputs: [x, weight], attributes, gradients: [dy] }) {
    const rows = product(x.shape.slice(0, -1))
    const width = lastDim(x)
    const x2 = reshape(x, [rows, width])
    const d = reshape(dy as Tensor, [rows, width])
    const r = apply1(inverseRmsOperation, [x2], attributes)
    // With z = dy*x: dw = sum_n r_n z_n, and dx = r dy w - x r^3 (z.w)/H.
    const z = mul(d, x2)
    const dw = reshape(matmul(r, z, { transposeA: true }), [width])
    const dot = matmul(z, reshape(weight, [width, 1]), { alpha: 1 / width })
    const dx = sub(mul(mul(d, weight), r), mul(x2, mul(dot, mul(r, mul(r, r)))))
    return [reshape(dx, x.shape), dw]
  },
  onnx: (emit, [x, weight], { epsilon }) => [
    emit.op('RMSNormalization', [x, weight], { axis: -1, epsilon: { float: epsilon } }),
  ],
})

/** 1 / sqrt(mean(x^2) + eps) per row: [n, H] -> [n, 1]. */
const inverseRmsOperation = defineOperation({
  name: 'inverseRms',
  inputs: ['x'],
  outputs: ['y'],
  attributes: z.strictObject({ epsilon: z.number() }),
  infer: ([x]) => [{ dtype: 'float32', shape: [x.shape[0], 1] }],
  onnx(emit, [x], { epsilon }, node) {
    const squares = emit.op('ReduceSumSquare', [x, emit.ints([1])], { keepdims: 1 })
    const mean = emit.op('Mul', [squares, emit.float(1 / lastDim(node.inputs[0]))])
    return [emit.op('Reciprocal', [emit.op('Sqrt', [emit.op('Add', [mean, emit.float(epsilon)])])])]
  },
})

/** RMSNorm over the last axis: x [..., H], weight [H]. */
export const rmsNorm = (x: Tensor, weight: Tensor, epsilon: number): Tensor =>
  apply(rmsNormOperation, [x, weight], { epsilon })[0]
