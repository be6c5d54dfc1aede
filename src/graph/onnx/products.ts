// Matrix products, as the targets have kernels for them.
import { product, type Shape } from '../shape.ts'
import type { Emitter } from './emitter.ts'

/** alpha * op(a) op(b) over the last two axes. */
export const fusedMatMul = (
  emit: Emitter,
  a: string,
  b: string,
  { transA = false, transB = false, alpha = 1 }: { transA?: boolean; transB?: boolean; alpha?: number },
): string =>
  emit.contrib('FusedMatMul', [a, b], { transA: transA ? 1 : 0, transB: transB ? 1 : 0, alpha: { float: alpha } })

/**
 * x W^T for x [..., in] and W [out, in]. WebGPU has no kernel for FusedMatMul, but one for Gemm, which takes the rows of a
 * matrix.
 */
export function timesTransposed(emit: Emitter, x: { name: string; shape: Shape }, weight: string, out: number): string {
  if (emit.target === 'onnxruntime-node') return emit.contrib('FusedMatMul', [x.name, weight], { transB: 1 })
  return overRows(emit, x, out, (rows) => emit.op('Gemm', [rows, weight], { transB: 1 }))
}

/** What makes rows of `out` values of rows [n, in], applied to x [..., in] of any rank. */
export function overRows(
  emit: Emitter,
  { name, shape }: { name: string; shape: Shape },
  out: number,
  apply: (rows: string) => string,
): string {
  if (shape.length === 2) return apply(name)
  const y = apply(emit.reshape(name, shape, [product(shape.slice(0, -1)), shape[shape.length - 1]]))
  const batch = emit.op('Shape', [name], { start: 0, end: -1 })
  return emit.op('Reshape', [y, emit.op('Concat', [batch, emit.ints([out])], { axis: 0 })])
}
