// Elementwise arithmetic with NumPy broadcasting.
import * as z from 'zod'
import { none } from '../attributes.ts'
import { defineOperation } from '../registry.ts'
import { broadcast, shapeText } from '../shape.ts'
import { apply1, type GradientContext, isTensor, type Tensor } from '../tensor.ts'
import { scalar } from './input.ts'
import { sumTo } from './reduce.ts'

type Binary = (a: Tensor | number, b: Tensor | number) => Tensor
type Unary = (x: Tensor) => Tensor

const lift = (value: Tensor | number): Tensor => (isTensor(value) ? value : scalar(value))

function binary(
  name: string,
  opType: string,
  partial: (dy: Tensor, a: Tensor, b: Tensor, y: Tensor) => [Tensor, Tensor],
): Binary {
  const operation = defineOperation({
    name,
    inputs: ['a', 'b'],
    outputs: ['y'],
    attributes: none,
    infer([a, b], _, fail) {
      if (a.dtype !== b.dtype) fail(`the types differ`)
      const shape = broadcast(a.shape, b.shape)
      if (!shape) return fail(`${shapeText(a.shape)} and ${shapeText(b.shape)} do not broadcast`)
      return [{ dtype: a.dtype, shape }]
    },
    gradient({ inputs: [a, b], outputs: [y], gradients: [dy] }) {
      const [da, db] = partial(dy as Tensor, a, b, y)
      return [sumTo(da, a.shape), sumTo(db, b.shape)]
    },
    onnx: (emit, inputs) => [emit.op(opType, inputs)],
  })
  return (a, b) => apply1(operation, [lift(a), lift(b)], null)
}

function unary(name: string, opType: string, derivative: (dy: Tensor, x: Tensor, y: Tensor) => Tensor): Unary {
  const operation = defineOperation({
    name,
    inputs: ['x'],
    outputs: ['y'],
    attributes: none,
    infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
    gradient: ({ inputs: [x], outputs: [y], gradients: [dy] }: GradientContext<null>) => [
      derivative(dy as Tensor, x, y),
    ],
    onnx: (emit, inputs) => [emit.op(opType, inputs)],
  })
  return (x) => apply1(operation, [x], null)
}

const differsOperation = defineOperation({
  name: 'differs',
  inputs: ['x'],
  outputs: ['y'],
  attributes: z.strictObject({ value: z.number() }),
  infer: ([x]) => [{ dtype: 'float32', shape: x.shape }],
  // Constant almost everywhere.
  gradient: () => [undefined],
  onnx(emit, [x], { value }, node) {
    const integer = node.inputs[0].dtype === 'int64'
    const other = integer ? emit.int(value) : emit.float(value)
    return [emit.op('Cast', [emit.op('Not', [emit.op('Equal', [x, other])])], { to: 1 })]
  },
})

/** 1 where x (float32 or int64) is not `value`, 0 where it is. */
export const differs = (x: Tensor, value: number): Tensor => apply1(differsOperation, [x], { value })

export const add: Binary = binary('add', 'Add', (dy) => [dy, dy])
export const sub: Binary = binary('sub', 'Sub', (dy) => [dy, neg(dy)])
export const mul: Binary = binary('mul', 'Mul', (dy, a, b) => [mul(dy, b), mul(dy, a)])
export const div: Binary = binary('div', 'Div', (dy, _a, b, y) => {
  const da = div(dy, b)
  return [da, neg(mul(da, y))]
})
export const neg: Unary = unary('neg', 'Neg', (dy) => neg(dy))
export const exp: Unary = unary('exp', 'Exp', (dy, _x, y) => mul(dy, y))
export const sqrt: Unary = unary('sqrt', 'Sqrt', (dy, _x, y) => div(dy, mul(2, y)))
export const sigmoid: Unary = unary('sigmoid', 'Sigmoid', (dy, _x, y) => mul(dy, mul(y, sub(1, y))))
/** log(1 + exp(x)), without overflow. */
export const softplus: Unary = unary('softplus', 'Softplus', (dy, x) => mul(dy, sigmoid(x)))
