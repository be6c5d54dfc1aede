// Operations that move or select values: reshape, expand, slice, concat, gather and scatter of rows.
import * as z from 'zod'
import { count, index, none, shape } from '../attributes.ts'
import { reshapeTarget } from '../onnx/emitter.ts'
import { emitAfter } from '../onnx/order.ts'
import { defineOperation } from '../registry.ts'
import { broadcast, type Dim, product, type Shape, sameShape, shapeText, sum as sumDims } from '../shape.ts'
import { apply1, type Tensor } from '../tensor.ts'
import { scalar } from './input.ts'
import { quantizedGatherRows } from './quantized.ts'
import { sumTo } from './reduce.ts'

const reshapeOperation = defineOperation({
  name: 'reshape',
  inputs: ['x'],
  outputs: ['y'],
  attributes: z.strictObject({ shape }),
  infer([x], { shape }, fail) {
    if (product(x.shape) !== product(shape)) fail(`cannot become ${shapeText(shape)}`)
    try {
      reshapeTarget(x.shape, shape)
    } catch (error) {
      fail((error as Error).message)
    }
    return [{ dtype: x.dtype, shape }]
  },
  gradient: ({ inputs: [x], gradients: [dy] }) => [reshape(dy as Tensor, x.shape)],
  onnx: (emit, [x], { shape }, node) => [emit.reshape(x, node.inputs[0].shape, shape)],
})

/** The same values in another shape; no copy. */
export const reshape = (x: Tensor, shape: Shape): Tensor =>
  sameShape(x.shape, shape) ? x : apply1(reshapeOperation, [x], { shape })

const afterOperation = defineOperation({
  name: 'after',
  inputs: ['x', 'y'],
  outputs: ['x'],
  attributes: none,
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  onnx: (emit, [x, y], _, node) => [emitAfter(emit, { name: x, shape: node.inputs[0].shape }, y)],
})

/** x itself, but not before y has been computed. */
export const after = (x: Tensor, y: Tensor): Tensor => apply1(afterOperation, [x, y], null)

const expandOperation = defineOperation({
  name: 'expand',
  inputs: ['x', 'like?'],
  outputs: ['y'],
  attributes: z.strictObject({ shape }),
  infer([x, like], { shape }, fail) {
    const out = broadcast(x.shape, shape)
    if (!out || !sameShape(out, shape)) fail(`does not broadcast to ${shapeText(shape)}`)
    const lead = shape.length - x.shape.length
    if (!like && shape.some((dim, i) => typeof dim !== 'number' && x.shape[i - lead] !== dim))
      fail(`a symbolic size of ${shapeText(shape)} needs a tensor of that size`)
    return [{ dtype: x.dtype, shape }]
  },
  gradient: ({ inputs: [x], gradients: [dy] }) => [sumTo(dy as Tensor, x.shape), undefined],
  onnx: (emit, [x, like], { shape }) => [
    emit.op('Expand', [
      x,
      like ? emit.op('Shape', [like]) : emit.ints(shape.map((dim) => (typeof dim === 'number' ? dim : 1))),
    ]),
  ],
})

/** Repeats values along axes of size 1. */
export const expand = (x: Tensor, shape: Shape): Tensor =>
  sameShape(x.shape, shape) ? x : apply1(expandOperation, [x], { shape })

/** `expand` to the shape of another tensor, whose sizes may be symbolic; its values do not matter. */
export const expandLike = (x: Tensor, like: Tensor): Tensor =>
  sameShape(x.shape, like.shape) || like.shape.every((dim) => typeof dim === 'number')
    ? expand(x, like.shape)
    : apply1(expandOperation, [x, like], { shape: like.shape })

const range = z.strictObject({ axis: index, start: index, end: count })

const sliceOperation = defineOperation({
  name: 'slice',
  inputs: ['x'],
  outputs: ['y'],
  attributes: range,
  infer([x], { axis, start, end }, fail) {
    const size = x.shape[axis]
    if (typeof size !== 'number' || start < 0 || end > size || start >= end)
      fail(`no range ${start}..${end} on axis ${axis}`)
    return [{ dtype: x.dtype, shape: x.shape.map((dim, i) => (i === axis ? end - start : dim)) }]
  },
  gradient({ inputs: [x], attributes, gradients: [dy] }) {
    return [apply1(padOperation, [dy as Tensor], { ...attributes, size: x.shape[attributes.axis] as number })]
  },
  onnx: (emit, [x], { axis, start, end }) => [
    emit.op('Slice', [x, emit.ints([start]), emit.ints([end]), emit.ints([axis])]),
  ],
})

/** The range start..end of an axis. */
export const slice = (x: Tensor, axis: number, start: number, end: number): Tensor =>
  start === 0 && end === x.shape[axis] ? x : apply1(sliceOperation, [x], { axis, start, end })

const padOperation = defineOperation({
  name: 'pad',
  inputs: ['x'],
  outputs: ['y'],
  attributes: range.extend({ size: count }),
  infer: ([x], { axis, size }) => [{ dtype: x.dtype, shape: x.shape.map((dim, i) => (i === axis ? size : dim)) }],
  gradient: ({ attributes: { axis, start, end }, gradients: [dy] }) => [slice(dy as Tensor, axis, start, end)],
  onnx: (emit, [x], { axis, start, end, size }) => [
    emit.op('Pad', [x, emit.ints([start, size - end]), '', emit.ints([axis])]),
  ],
})

const concatOperation = defineOperation({
  name: 'concat',
  inputs: ['x...'],
  outputs: ['y'],
  attributes: z.strictObject({ axis: index }),
  infer(inputs, { axis }, fail) {
    const [first, ...rest] = inputs
    if (!(axis >= 0 && axis < first.shape.length)) fail(`no axis ${axis} in ${shapeText(first.shape)}`)
    let size: Dim = first.shape[axis]
    for (const x of rest) {
      if (x.dtype !== first.dtype) fail('the types differ')
      if (x.shape.length !== first.shape.length || x.shape.some((dim, i) => i !== axis && dim !== first.shape[i]))
        fail(`the shapes differ elsewhere than on axis ${axis}`)
      size = sumDims(size, x.shape[axis])
    }
    return [{ dtype: first.dtype, shape: first.shape.map((dim, i) => (i === axis ? size : dim)) }]
  },
  gradient({ inputs, attributes: { axis }, gradients: [dy] }) {
    let start = 0
    return inputs.map((x) => {
      const end = start + (x.shape[axis] as number)
      const part = slice(dy as Tensor, axis, start, end)
      start = end
      return part
    })
  },
  onnx: (emit, inputs, { axis }) => [emit.op('Concat', inputs, { axis })],
})

export const concat = (inputs: readonly Tensor[], axis: number): Tensor =>
  inputs.length === 1 ? inputs[0] : apply1(concatOperation, inputs, { axis })

const gatherOperation = defineOperation({
  name: 'gatherRows',
  inputs: ['x', 'index'],
  outputs: ['rows'],
  attributes: none,
  infer([x, index], _, fail) {
    if (index.dtype !== 'int32' && index.dtype !== 'int64') fail('the index must be int32 or int64')
    if (x.shape.length < 1) fail('a scalar has no rows')
    return [{ dtype: x.dtype, shape: [...index.shape, ...x.shape.slice(1)] }]
  },
  gradient({ inputs: [x, index], gradients: [dy] }) {
    const symbolic = x.shape.some((dim) => typeof dim !== 'number')
    return [scatterAddRows(x.shape, index, dy as Tensor, symbolic ? expandLike(scalar(0), x) : undefined), undefined]
  },
  onnx: (emit, inputs) => [emit.op('Gather', inputs, { axis: 0 })],
})

/**
 * Rows `x[index]`: x [n, ...], index of any shape S -> [...S, ...], from float16 widened to float32. An embedding is this with
 * the vocabulary as rows.
 */
export function gatherRows(x: Tensor, index: Tensor): Tensor {
  const quantized = quantizedGatherRows(x, index)
  if (quantized) return quantized
  const rows = apply1(gatherOperation, [x, index], null)
  return x.dtype === 'float16' ? cast(rows, 'float32') : rows
}

const scatterOperation = defineOperation({
  name: 'scatterAddRows',
  inputs: ['index', 'updates', 'base?'],
  outputs: ['y'],
  attributes: z.strictObject({ shape }),
  infer([index, updates, base], { shape }, fail) {
    if (index.dtype !== 'int32' && index.dtype !== 'int64') fail('the index must be int32 or int64')
    const rows: Shape = [...index.shape, ...shape.slice(1)]
    if (!sameShape(updates.shape, rows)) fail(`the rows must be ${shapeText(rows)}`)
    if (base && !sameShape(base.shape, shape)) fail(`the base must be ${shapeText(shape)}`)
    return [{ dtype: updates.dtype, shape }]
  },
  gradient: ({ inputs, gradients: [dy] }) => {
    const rows = gatherRows(dy as Tensor, inputs[0])
    return inputs.length === 3 ? [undefined, rows, dy] : [undefined, rows]
  },
  onnx(emit, [index, updates, base], { shape }) {
    const rest = shape.slice(1).map(Number)
    const into = base ?? emit.op('Expand', [emit.float(0), emit.ints(shape.map(Number))])
    // Not ScatterND: ONNX Runtime adds its rows from several threads at once, and loses some where an index repeats.
    const rows = emit.op('Reshape', [index, emit.ints([-1, ...rest.map(() => 1)])])
    const elements = emit.op('Expand', [rows, emit.ints([1, ...rest])])
    const values = emit.op('Reshape', [updates, emit.ints([-1, ...rest])])
    return [emit.op('ScatterElements', [into, elements, values], { axis: 0, reduction: 'add' })]
  },
})

/** Zeros of `shape` (or `base`) with `updates` added at rows `index`; an index may occur more than once. */
export const scatterAddRows = (shape: Shape, index: Tensor, updates: Tensor, base?: Tensor): Tensor =>
  apply1(scatterOperation, base ? [index, updates, base] : [index, updates], { shape })

/** The sum of two gradients; rows scattered into zeros are scattered into the other gradient instead. */
export function scatterInto(base: Tensor, rows: Tensor): Tensor | undefined {
  if (rows.node.operation !== (scatterOperation as unknown) || rows.node.inputs.length === 3) return undefined
  const [index, updates] = rows.node.inputs
  return scatterAddRows(base.shape, index, updates, base)
}

const castOperation = defineOperation({
  name: 'cast',
  inputs: ['x'],
  outputs: ['y'],
  attributes: z.strictObject({ dtype: z.enum(['float32', 'int64', 'int32']) }),
  infer: ([x], { dtype }) => [{ dtype, shape: x.shape }],
  onnx: (emit, [x], { dtype }) => [emit.op('Cast', [x], { to: { float32: 1, int64: 7, int32: 6 }[dtype] })],
})

export const cast = (x: Tensor, dtype: 'float32' | 'int64' | 'int32'): Tensor =>
  x.dtype === dtype ? x : apply1(castOperation, [x], { dtype })
