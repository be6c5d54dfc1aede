// What the attention operations share: heads in groups, products of them, and the softmax over two sets of keys with its
// gradient. Every query attends to its
// own tile or group, and to a context that others see too.
import { count } from '../../attributes.ts'
import type { Emitter } from '../../onnx/emitter.ts'
import { fusedMatMul } from '../../onnx/products.ts'
import { lastDim, type OutputType, type Tensor } from '../../tensor.ts'

/** Query heads, and the key heads that they share. */
export interface Heads {
  heads: number
  kvHeads: number
}

export const headAttributes = { heads: count, kvHeads: count }

export type Fail = (why: string) => never

/** For layouts that were checked when the node was traced. */
export const never: Fail = (why) => {
  throw new Error(why)
}

/** The width of a head, and how many query heads share a key head, for q [..., heads * D]. */
export function sharedHeads(q: Tensor, { heads, kvHeads }: Heads, fail: Fail): { headDim: number; share: number } {
  const headDim = lastDim(q) / heads
  if (!Number.isInteger(headDim) || heads % kvHeads !== 0)
    fail(`${heads} query heads and ${kvHeads} key heads do not fit the width ${lastDim(q)}`)
  return { headDim, share: heads / kvHeads }
}

/** How scores are scaled. */
export const scaleOf = (headDim: number): number => 1 / Math.sqrt(headDim)

/** The moves that layouts are made of. */
export const moves = (emit: Emitter) => ({
  reshape: (x: string, shape: readonly number[]) => emit.op('Reshape', [x, emit.ints(shape)]),
  transpose: (x: string, perm: readonly number[]) => emit.op('Transpose', [x], { perm }),
})

/** alpha a b^T: the products of each row of a with each of b, as of queries and keys. */
export const dots = (emit: Emitter, a: string, b: string, alpha = 1): string =>
  fusedMatMul(emit, a, b, { transB: true, alpha })

/** alpha a b: rows of b, mixed by each row of a. */
export const mix = (emit: Emitter, a: string, b: string, alpha = 1): string => fusedMatMul(emit, a, b, { alpha })

/** alpha a^T b: rows of b, mixed by each column of a. It gives the gradients of keys and values. */
export const mixByColumns = (emit: Emitter, a: string, b: string, alpha = 1): string =>
  fusedMatMul(emit, a, b, { transA: true, alpha })

/** Softmax over the scores of both sets of keys together; the probabilities of each, of these widths (or a tensor of them). */
export function softmaxOfBoth(
  emit: Emitter,
  own: string,
  context: string,
  widths: readonly [own: number, context: number] | string,
): [own: string, context: string] {
  const all = emit.op('Softmax', [emit.op('Concat', [own, context], { axis: -1 })], { axis: -1 })
  const sizes = typeof widths === 'string' ? widths : emit.ints(widths)
  const [a, b] = emit.node('Split', [all, sizes], { attributes: { axis: -1 }, outputs: 2 })
  return [a, b]
}

/**
 * The gradient of scores S from that of probabilities P: dS = P (dP - rowsum(dP P)), and rowsum(dP P) = rowsum(dy y) over
 * both sets of keys (Dao et al., 2022, section 3.1).
 */
export const rowSums = (emit: Emitter, dy: string, y: string): string =>
  emit.op('ReduceSum', [emit.op('Mul', [dy, y]), emit.ints([-1])], { keepdims: 1 })

export const scoreGradient = (emit: Emitter, p: string, dP: string, sums: string): string =>
  emit.op('Mul', [p, emit.op('Sub', [dP, sums])])

/** Types of the gradients of these inputs. */
export const likeInputs = (inputs: readonly Tensor[]): OutputType[] =>
  inputs.map(({ dtype, shape }) => ({ dtype, shape }))
