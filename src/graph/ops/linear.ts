// Matrix products. `linear` is y = x W^T + b with W stored [out, in], as checkpoints do.
import * as z from 'zod'
import { none } from '../attributes.ts'
import { fusedMatMul, timesTransposed } from '../onnx/products.ts'
import { defineOperation } from '../registry.ts'
import { product, type Shape, shapeText } from '../shape.ts'
import { apply1, lastDim, type Tensor } from '../tensor.ts'
import { halfLinear } from './half.ts'
import { reshape } from './layout.ts'
import { quantizedLinear } from './quantized.ts'
import { sum } from './reduce.ts'

const matmulAttributes = z.strictObject({ transposeA: z.boolean(), transposeB: z.boolean(), alpha: z.number() })
type MatmulAttributes = z.infer<typeof matmulAttributes>

const matmulOperation = defineOperation({
  name: 'matmul',
  inputs: ['a', 'b'],
  outputs: ['y'],
  attributes: matmulAttributes,
  infer([a, b], { transposeA, transposeB }, fail) {
    if (a.dtype !== 'float32' || b.dtype !== 'float32') fail('both must be float32')
    if (a.shape.length < 2 || b.shape.length !== a.shape.length) fail('both need the same rank of at least 2')
    const rank = a.shape.length
    const [m, k] = transposeA ? [a.shape[rank - 1], a.shape[rank - 2]] : [a.shape[rank - 2], a.shape[rank - 1]]
    const [k2, n] = transposeB ? [b.shape[rank - 1], b.shape[rank - 2]] : [b.shape[rank - 2], b.shape[rank - 1]]
    if (k !== k2) fail(`the inner sizes ${k} and ${k2} differ`)
    const batch = a.shape.slice(0, -2)
    if (batch.some((dim, i) => dim !== b.shape[i]))
      fail(`the batch sizes ${shapeText(batch)} and ${shapeText(b.shape.slice(0, -2))} differ`)
    return [{ dtype: 'float32', shape: [...batch, m, n] }]
  },
  gradient({ inputs: [a, b], attributes: { transposeA, transposeB, alpha }, gradients: [dy] }) {
    const d = dy as Tensor
    const da = transposeA
      ? matmul(b, d, { transposeA: transposeB, transposeB: true, alpha })
      : matmul(d, b, { transposeB: !transposeB, alpha })
    const db = transposeB
      ? matmul(d, a, { transposeA: true, transposeB: transposeA, alpha })
      : matmul(a, d, { transposeA: !transposeA, alpha })
    return [da, db]
  },
  onnx: (emit, inputs, { transposeA, transposeB, alpha }) => [
    !transposeA && !transposeB && alpha === 1
      ? emit.op('MatMul', inputs)
      : fusedMatMul(emit, inputs[0], inputs[1], { transA: transposeA, transB: transposeB, alpha }),
  ],
})

/** alpha * op(a) op(b) over the last two axes; the leading axes are equal. */
export const matmul = (a: Tensor, b: Tensor, options: Partial<MatmulAttributes> = {}): Tensor =>
  apply1(matmulOperation, [a, b], { transposeA: false, transposeB: false, alpha: 1, ...options })

const linearOperation = defineOperation({
  name: 'linear',
  inputs: ['x', 'weight', 'bias?'],
  outputs: ['y'],
  attributes: none,
  infer([x, weight, bias], _, fail) {
    for (const { dtype } of [x, weight]) if (dtype !== 'float32') fail('both must be float32')
    if (weight.shape.length !== 2) fail('the weight must be [out, in]')
    if (x.shape[x.shape.length - 1] !== weight.shape[1])
      fail(`the input's last size ${x.shape[x.shape.length - 1]} is not the weight's ${weight.shape[1]}`)
    if (bias && (bias.shape.length !== 1 || bias.shape[0] !== weight.shape[0]))
      fail(`the bias must be [${weight.shape[0]}]`)
    return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), weight.shape[0]] }]
  },
  gradient({ inputs: [x, weight, bias], gradients: [dy] }) {
    const rows = product(x.shape.slice(0, -1))
    const flat: Shape = [rows, lastDim(dy as Tensor)]
    const d = reshape(dy as Tensor, flat)
    const dx = reshape(matmul(d, weight), x.shape)
    const dw = matmul(d, reshape(x, [rows, lastDim(x)]), { transposeA: true })
    return bias ? [dx, dw, sum(d, [0])] : [dx, dw]
  },
  onnx(emit, [x, weight, bias], _, node) {
    const { shape } = node.inputs[0]
    const flat = [product(shape.slice(0, -1)), shape[shape.length - 1]]
    if (typeof flat[0] === 'number') {
      const x2 = shape.length === 2 ? x : emit.reshape(x, shape, flat)
      const y = emit.op('Gemm', bias ? [x2, weight, bias] : [x2, weight], { transB: 1 })
      return [shape.length === 2 ? y : emit.reshape(y, [], node.outputs[0].shape)]
    }
    const y = timesTransposed(emit, { name: x, shape }, weight, Number(node.inputs[1].shape[0]))
    return [bias ? emit.op('Add', [y, bias]) : y]
  },
})

/** y = x W^T + b: x [..., in], weight [out, in] (float32, float16 or quantised), bias [out] -> [..., out]. */
export const linear = (x: Tensor, weight: Tensor, bias?: Tensor): Tensor =>
  quantizedLinear(x, weight, bias) ??
  halfLinear(x, weight, bias) ??
  apply1(linearOperation, bias ? [x, weight, bias] : [x, weight], null)
