// Products in whole numbers, of matrices with one scale per row: each row of the input is rounded to 8 bits with a scale of its
// own, so that what it gives does not depend on the others. Sums are exact, in any order.

import { ONNX_TYPE } from '../../core/element-types.ts'
import { product, type Shape } from '../shape.ts'
import type { Emitter } from './emitter.ts'

/** Numbers of an input row go from -127 to 127, the one of largest size to an end. */
const MOST = 127

/** Those numbers are stored with this added, which VNNI's instructions want: unsigned inputs, signed weights. */
const zeroPoint = (emit: Emitter): string => emit.constant({ dtype: 'uint8', shape: [], data: Uint8Array.of(128) })

/** x W^T for x [..., width] and W [out, width] of int8 numbers with `scales` [out]. */
export function integerProduct(
  emit: Emitter,
  { name: x, shape }: { name: string; shape: Shape },
  [numbers, scales]: readonly string[],
  out: number,
): string {
  const batch = shape.slice(0, -1)
  const isMatrix = shape.length === 2
  const rows = isMatrix ? x : emit.reshape(x, shape, [product(batch), shape[shape.length - 1]])
  let most = emit.op('ReduceMax', [emit.op('Abs', [rows]), emit.ints([-1])], { keepdims: 1 })
  // Chosen rows, [R, width], may be none: ReduceMax then leaves the shape as it is.
  if (isMatrix) most = emit.op('Reshape', [most, emit.ints([0, 1])])
  // A row of zeros gives numbers of any kind, times 0.
  const shares = emit.op('Div', [rows, most])
  const step = emit.float(1 / MOST)
  const rounded = emit.op('QuantizeLinear', [shares, step, zeroPoint(emit)])
  const zeros = emit.constant({ dtype: 'int8', shape: [out], data: new Int8Array(out) })
  const y = emit.contrib('QGemm', [rounded, step, zeroPoint(emit), numbers, scales, zeros], { transB: 1 })
  const scaled = emit.op('Mul', [y, most])
  if (isMatrix) return scaled
  const whole = emit.once(`[${batch}, ${out}]`, () => {
    const sizes = emit.once(`[${batch}]`, () => emit.op('Shape', [x], { start: 0, end: -1 }))
    return emit.op('Concat', [sizes, emit.ints([out])], { axis: 0 })
  })
  return emit.op('Reshape', [scaled, whole])
}

/** Rows of such a matrix: index of any shape S -> [...S, width]. */
export function integerRows(emit: Emitter, index: string, [numbers, scales]: readonly string[]): string {
  const rows = emit.op('Cast', [emit.op('Gather', [numbers, index], { axis: 0 })], { to: ONNX_TYPE.float32 })
  const each = emit.op('Unsqueeze', [emit.op('Gather', [scales, index], { axis: 0 }), emit.ints([-1])])
  return emit.op('Mul', [rows, each])
}
