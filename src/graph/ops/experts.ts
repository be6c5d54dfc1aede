// A mixture of experts (Shazeer et al., 2017): which experts a position goes to, and what they give back. Each expert is
// SwiGLU over the positions that chose it. Knows nothing about how scores are made.

import { pullback } from '../gradient.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { product, type Shape, sameShape } from '../shape.ts'
import { apply, apply1, lastDim, type Operation, type Tensor } from '../tensor.ts'
import { add, mul } from './elementwise.ts'
import { gatherRows, reshape, scatterAddRows, slice } from './layout.ts'
import { linear } from './linear.ts'
import { emitLinear, matrixStorage, type StoredMatrix } from './quantized.ts'
import { swiglu } from './swiglu.ts'

export interface Selection {
  /** Experts that each position goes to. */
  topK: number
  /** Experts come in this many groups of consecutive ones. */
  groups: number
  /** Groups that a position may choose from: those whose two best experts have the largest sum. */
  topGroups: number
}

const selectOperation: Operation<Selection> = {
  name: 'selectExperts',
  infer([scores], { topK, groups, topGroups }, fail) {
    const experts = lastDim(scores)
    if (experts % groups !== 0) fail(`${experts} experts are not ${groups} equal groups`)
    if (topGroups > groups) fail(`${topGroups} of ${groups} groups cannot be chosen`)
    if (topK > (experts / groups) * topGroups) fail(`${topK} experts cannot be chosen from ${topGroups} groups`)
    return [{ dtype: 'float32', shape: scores.shape }]
  },
  // The choice is constant almost everywhere.
  gradient: () => [undefined],
  onnx(emit, [scores], { topK, groups, topGroups }, node) {
    const experts = lastDim(node.inputs[0])
    const size = experts / groups
    let rows = emit.op('Reshape', [scores, emit.ints([-1, experts])])
    if (topGroups < groups) {
      const grouped = emit.op('Reshape', [rows, emit.ints([-1, groups, size])])
      const [best] = emit.node('TopK', [grouped, emit.ints([Math.min(2, size)])], { outputs: 2 })
      const groupScores = emit.op('ReduceSum', [best, emit.ints([-1])], { keepdims: 0 })
      const open = emit.op('Unsqueeze', [chosen(emit, groupScores, topGroups, groups), emit.ints([-1])])
      const lowest = emit.float(Number.NEGATIVE_INFINITY)
      const kept = emit.op('Where', [emit.op('Greater', [open, emit.float(0)]), grouped, lowest])
      rows = emit.op('Reshape', [kept, emit.ints([-1, experts])])
    }
    return [emit.op('Reshape', [chosen(emit, rows, topK, experts), emit.op('Shape', [scores])])]
  },
}

/** values [n, width] -> [n, width]: 1 at the `count` largest of each row, 0 elsewhere. */
function chosen(emit: Emitter, values: string, count: number, width: number): string {
  const [, index] = emit.node('TopK', [values, emit.ints([count])], { outputs: 2 })
  const offOn = emit.constant({ dtype: 'float32', shape: [2], data: Float32Array.of(0, 1) })
  return emit.op('ReduceSum', [emit.op('OneHot', [index, emit.ints([width]), offOn]), emit.ints([1])], { keepdims: 0 })
}

/**
 * scores [..., E] -> [..., E]: 1 for the `topK` experts of each position, 0 for the others. With groups, as in
 * DeepSeek-V3 (2412.19437) and LLaDA2.0: experts outside the best groups cannot be chosen.
 */
export const selectExperts = (scores: Tensor, selection: Selection): Tensor =>
  apply1(selectOperation, [scores], selection)

const maximumOperation: Operation<null> = {
  name: 'rowMaximum',
  infer: ([x]) => [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), 1] }],
  // What it is used for does not depend on it.
  gradient: () => [undefined],
  onnx: (emit, [x]) => [emit.op('ReduceMax', [x, emit.ints([-1])], { keepdims: 1 })],
}

/** The largest value of each row, [..., 1]; a constant to gradients, to be subtracted before exp. */
export const rowMaximum = (x: Tensor): Tensor => apply1(maximumOperation, [x], null)

/** The matrices of one expert: gate and up [inner, H], down [H, inner]. */
export interface Expert {
  gate: Tensor
  up: Tensor
  down: Tensor
}

interface ExpertsAttributes {
  topK: number
  /** Of gate, up and down of each expert, in order. */
  matrices: readonly StoredMatrix[]
}

const expertsOperation: Operation<ExpertsAttributes> = {
  name: 'experts',
  infer([x, weights, selected], { matrices }, fail) {
    const count = matrices.length / 3
    if (!sameShape(weights.shape, [...x.shape.slice(0, -1), count]))
      fail(`the weights must be one for each of ${count}`)
    if (!sameShape(selected.shape, weights.shape)) fail('the selection must be of the shape of the weights')
    return [{ dtype: 'float32', shape: x.shape }]
  },
  gradient({ inputs: [x, weights, selected, ...matrices], gradients: [dy] }) {
    const boundaries = [x, weights, ...matrices].map((tensor) => apply1(boundaryOperation, [tensor], null))
    const [bx, bw, ...rest] = boundaries
    const sizes: Shape = [product(x.shape.slice(0, -1)), lastDim(x)]
    const y = oneByOne(reshape(bx, sizes), reshape(bw, [sizes[0], lastDim(weights)]), selected, rest)
    const [dx, dw, ...others] = pullback(y, reshape(dy as Tensor, sizes), boundaries)
    return [dx, dw, undefined, ...others]
  },
  /**
   * The positions of an expert are gathered, and where it has none nothing of it runs: an If around each. Every position
   * has `topK` results, which are brought together in its order and summed.
   */
  onnx(emit, [x, weights, selected, ...stored], { topK, matrices }, node) {
    const width = lastDim(node.inputs[0])
    const count = matrices.length / 3
    const flat = (name: string, last: number) => emit.op('Reshape', [name, emit.ints([-1, last])])
    const [rows, choice] = [flat(x, width), flat(selected, count)]
    const byExpert = emit.op('Transpose', [choice], { perm: [1, 0] })
    const row = (name: string, which: number) =>
      emit.op('Squeeze', [emit.op('Gather', [name, emit.ints([which])], { axis: 0 }), emit.ints([0])])
    const positions = row(emit.op('NonZero', [byExpert]), 1)
    const sizes = emit.op('Cast', [emit.op('ReduceSum', [byExpert, emit.ints([1])], { keepdims: 0 })], { to: 7 })
    const ends = emit.op('CumSum', [sizes, emit.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(0n) })])
    const each = (name: string) =>
      emit.node('Split', [name], { outputs: count, attributes: { axis: 0, num_outputs: count } })
    const start = each(emit.op('Sub', [ends, sizes]))
    const end = each(ends)
    const busy = each(emit.op('Greater', [sizes, emit.ints([0])]))
    const parts: string[] = []
    let at = 0
    for (let expert = 0; expert < count; expert++) {
      const body = emit.body()
      const mine = body.op('Gather', [rows, body.op('Slice', [positions, start[expert], end[expert]])], { axis: 0 })
      const [gate, up, down] = [0, 1, 2].map((which) => {
        const matrix = matrices[expert * 3 + which]
        const names = stored.slice(at, at + matrix.inputs)
        at += matrix.inputs
        return (input: string) => emitLinear(body, input, names, matrix)
      })
      const gated = gate(mine)
      const inner = body.op('Mul', [body.op('Mul', [gated, body.op('Sigmoid', [gated])]), up(mine)])
      const result = { dtype: 'float32' as const, shape: ['rows', width] }
      const idle = emit.body()
      const nothing = idle.op('ConstantOfShape', [idle.ints([0, width])])
      const branch = (name: string, graph: Emitter, output: string) => ({
        name,
        inputs: [],
        outputs: [{ name: output, ...result }],
        body: graph,
      })
      parts.push(
        emit.op('If', [busy[expert]], {
          then_branch: branch(`expert.${expert}`, body, down(inner)),
          else_branch: branch(`idle.${expert}`, idle, nothing),
        }),
      )
    }
    // Results are ordered by expert, then position; sorted by position they are topK rows for each.
    const total = emit.op('Size', [positions])
    const zero = emit.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(0n) })
    const one = emit.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(1n) })
    const keys = emit.op('Add', [emit.op('Mul', [positions, total]), emit.op('Range', [zero, total, one])])
    const count1 = emit.op('Reshape', [total, emit.ints([1])])
    const [, order] = emit.node('TopK', [keys, count1], { outputs: 2, attributes: { axis: 0, largest: 0, sorted: 1 } })
    const results = emit.op('Gather', [emit.op('Concat', parts, { axis: 0 }), order], { axis: 0 })
    const where = emit.op('Transpose', [emit.op('NonZero', [choice])], { perm: [1, 0] })
    const shares = emit.op('GatherND', [flat(weights, count), where])
    const summed = emit.op('MatMul', [
      emit.op('Reshape', [shares, emit.ints([-1, 1, topK])]),
      emit.op('Reshape', [results, emit.ints([-1, topK, width])]),
    ])
    return [emit.op('Reshape', [summed, emit.op('Shape', [x])])]
  },
}

/** The same tensor, at which a gradient stops. */
const boundaryOperation: Operation<null> = {
  name: 'boundary',
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  gradient: () => [undefined],
  onnx: (_, [x]) => [x],
}

const positionsOperation: Operation<{ expert: number }> = {
  name: 'positionsOf',
  infer: (_, { expert }) => [{ dtype: 'int64', shape: [`expert${expert}`] }],
  onnx(emit, [selected], { expert }, node) {
    const rows = emit.op('Reshape', [selected, emit.ints([-1, lastDim(node.inputs[0])])])
    const column = emit.op(
      'Gather',
      [rows, emit.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(expert)) })],
      { axis: 1 },
    )
    return [emit.op('Reshape', [emit.op('NonZero', [column]), emit.ints([-1])])]
  },
}

/** What `experts` computes, of operations that have gradients. x [n, H], weights [n, E]. */
function oneByOne(x: Tensor, weights: Tensor, selected: Tensor, matrices: readonly Tensor[]): Tensor {
  const experts = Array.from({ length: matrices.length / 3 }, (_, expert) => {
    const [gate, up, down] = matrices.slice(3 * expert, 3 * expert + 3)
    const index = apply1(positionsOperation, [selected], { expert })
    const mine = gatherRows(x, index)
    const inner = swiglu(linear(mine, gate), linear(mine, up))
    const shares = gatherRows(slice(weights, 1, expert, expert + 1), index)
    return scatterAddRows(x.shape, index, mul(linear(inner, down), shares))
  })
  return experts.reduce((a, b) => add(a, b))
}

/**
 * The sum over the experts of a position of weight * down(silu(gate x) * up x). x [..., H]; weights and `selected`
 * [..., E], of which `selected` is 1 at exactly `topK` experts per position and 0 elsewhere. An expert that no position
 * chose costs nothing.
 */
export function experts(
  x: Tensor,
  { weights, selected, topK }: { weights: Tensor; selected: Tensor; topK: number },
  all: readonly Expert[],
): Tensor {
  const stored = all.flatMap(({ gate, up, down }) => [gate, up, down].map(matrixStorage))
  return apply(expertsOperation, [x, weights, selected, ...stored.flatMap(({ tensors }) => tensors)], {
    topK,
    matrices: stored.map(({ matrix }) => matrix),
  })[0]
}
