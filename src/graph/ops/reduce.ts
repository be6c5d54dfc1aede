// Sums over axes, and the sum that undoes broadcasting.
import * as z from 'zod'
import { axes } from '../attributes.ts'
import { defineOperation } from '../registry.ts'
import { type Dim, type Shape, sameShape, shapeText } from '../shape.ts'
import { apply1, type Tensor } from '../tensor.ts'
import { expandLike, reshape } from './layout.ts'

const sumOperation = defineOperation({
  name: 'sum',
  inputs: ['x'],
  outputs: ['y'],
  attributes: z.strictObject({ axes, keepDims: z.boolean() }),
  infer([x], { axes, keepDims }, fail) {
    for (const axis of axes) if (!(axis >= 0 && axis < x.shape.length)) fail(`no axis ${axis} in ${shapeText(x.shape)}`)
    const shape: Dim[] = []
    x.shape.forEach((dim, i) => {
      if (!axes.includes(i)) shape.push(dim)
      else if (keepDims) shape.push(1)
    })
    return [{ dtype: x.dtype, shape }]
  },
  gradient({ inputs: [x], attributes: { axes }, gradients: [dy] }) {
    const kept = x.shape.map((dim, i) => (axes.includes(i) ? 1 : dim))
    return [expandLike(reshape(dy as Tensor, kept), x)]
  },
  onnx: (emit, [x], { axes, keepDims }) => [emit.op('ReduceSum', [x, emit.ints(axes)], { keepdims: keepDims ? 1 : 0 })],
})

/** The sum over `axes` (all by default; over none it is `x`). */
export const sum = (x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i), keepDims = false): Tensor =>
  axes.length === 0 ? x : apply1(sumOperation, [x], { axes, keepDims })

/** Sums a broadcast gradient back to the shape it was broadcast from. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x
  const lead = x.shape.length - shape.length
  const axes = x.shape.flatMap((dim, i) => (i < lead || (shape[i - lead] === 1 && dim !== 1) ? [i] : []))
  const summed = axes.length > 0 ? sum(x, axes, true) : x
  return sameShape(summed.shape, shape) ? summed : reshape(summed, shape)
}

const sumSquaresOperation = defineOperation({
  name: 'sumSquares',
  inputs: ['x'],
  outputs: ['y'],
  attributes: z.strictObject({ axes }),
  infer: ([x], { axes }) => [{ dtype: x.dtype, shape: x.shape.filter((_, i) => !axes.includes(i)) }],
  onnx: (emit, [x], { axes }) => [emit.op('ReduceSumSquare', [x, emit.ints(axes)], { keepdims: 0 })],
})

/** The sum of squares over `axes`, for norms; not differentiated. */
export const sumSquares = (x: Tensor, axes: readonly number[]): Tensor => apply1(sumSquaresOperation, [x], { axes })
