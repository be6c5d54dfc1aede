// A mixture of experts (Shazeer et al., 2017): which experts a position goes to, and what they give back. Each expert is
// SwiGLU over the positions that chose it. Knows nothing about how scores are made.

import * as z from 'zod'
import { count, none } from '../attributes.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { fusedMatMul } from '../onnx/products.ts'
import { defineOperation } from '../registry.ts'
import { sameShape } from '../shape.ts'
import { apply, apply1, lastDim, type Tensor } from '../tensor.ts'
import { emitFloatMatrix, emitLinear, matrixStorage, storedMatrix } from './quantized.ts'

const selectionAttributes = z.strictObject({
  /** Experts that each position goes to. */
  topK: count,
  /** Experts come in this many groups of consecutive ones. */
  groups: count,
  /** Groups that a position may choose from: those whose two best experts have the largest sum. */
  topGroups: count,
})
export type Selection = z.infer<typeof selectionAttributes>

const selectOperation = defineOperation({
  name: 'selectExperts',
  inputs: ['scores'],
  outputs: ['selected'],
  attributes: selectionAttributes,
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
    // One row more than there are: TopK dies of a division by zero where there are none.
    const spare = emit.constant({ dtype: 'float32', shape: [1, experts], data: new Float32Array(experts) })
    let rows = emit.op('Concat', [emit.op('Reshape', [scores, emit.ints([-1, experts])]), spare], { axis: 0 })
    if (topGroups < groups) {
      const grouped = emit.op('Reshape', [rows, emit.ints([-1, groups, size])])
      const [best] = emit.node('TopK', [grouped, emit.ints([Math.min(2, size)])], { outputs: 2 })
      const groupScores = emit.op('ReduceSum', [best, emit.ints([-1])], { keepdims: 0 })
      const open = emit.op('Unsqueeze', [chosen(emit, groupScores, topGroups, groups), emit.ints([-1])])
      const lowest = emit.float(Number.NEGATIVE_INFINITY)
      const kept = emit.op('Where', [emit.op('Greater', [open, emit.float(0)]), grouped, lowest])
      rows = emit.op('Reshape', [kept, emit.ints([-1, experts])])
    }
    const all = chosen(emit, rows, topK, experts)
    const wanted = emit.op('Slice', [all, emit.ints([0]), emit.ints([-1]), emit.ints([0])])
    return [emit.op('Reshape', [wanted, emit.op('Shape', [scores])], { allowzero: 1 })]
  },
})

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

const maximumOperation = defineOperation({
  name: 'rowMaximum',
  inputs: ['x'],
  outputs: ['y'],
  attributes: none,
  infer: ([x]) => [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), 1] }],
  // What it is used for does not depend on it.
  gradient: () => [undefined],
  onnx: (emit, [x]) => [emit.op('ReduceMax', [x, emit.ints([-1])], { keepdims: 1 })],
})

/** The largest value of each row, [..., 1]; a constant to gradients, to be subtracted before exp. */
export const rowMaximum = (x: Tensor): Tensor => apply1(maximumOperation, [x], null)

/** The matrices of one expert: gate and up [inner, H], down [H, inner]. */
export interface Expert {
  gate: Tensor
  up: Tensor
  down: Tensor
}

const expertsOperation = defineOperation({
  name: 'experts',
  inputs: ['x', 'weights', 'selected', 'matrices...'],
  outputs: ['y'],
  attributes: z.strictObject({
    topK: count,
    /** Of gate, up and down of each expert, in order. */
    matrices: z.array(storedMatrix).readonly(),
  }),
  infer([x, weights, selected], { matrices }, fail) {
    const count = matrices.length / 3
    if (!sameShape(weights.shape, [...x.shape.slice(0, -1), count]))
      fail(`the weights must be one for each of ${count}`)
    if (!sameShape(selected.shape, weights.shape)) fail('the selection must be of the shape of the weights')
    return [{ dtype: 'float32', shape: x.shape }]
  },
  gradient({ inputs: [x, weights, selected, ...tensors], attributes: { topK, matrices }, gradients: [dy] }) {
    const inputs = [dy as Tensor, x, weights, selected, ...tensors]
    // Quantised experts are frozen.
    const frozen = matrices.some(({ quantized }) => quantized) ? { frozen: matrices } : {}
    const [dx, dw, ...others] = apply(gradientOperation, inputs, { topK, ...frozen })
    return [dx, dw, undefined, ...(others.length > 0 ? others : tensors.map(() => undefined))]
  },
  /** The positions of an expert are gathered, and where it has none nothing of it runs: an If around each. */
  onnx(emit, [x, weights, selected, ...stored], { topK, matrices }, node) {
    const width = lastDim(node.inputs[0])
    const count = matrices.length / 3
    const rows = emit.op('Reshape', [x, emit.ints([-1, width])])
    const assigned = assignments(emit, selected, count)
    const busy = emit.node('Split', [emit.op('Greater', [assigned.sizes, emit.ints([0])])], splitInto(count))
    const parts: string[] = []
    let at = 0
    for (let expert = 0; expert < count; expert++) {
      const body = emit.body()
      const mine = body.op('Gather', [rows, assigned.part(body, assigned.positions, expert)], { axis: 0 })
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
    const results = assigned.byPosition(emit.op('Concat', parts, { axis: 0 }))
    const where = emit.op('Transpose', [emit.op('NonZero', [assigned.choice])], { perm: [1, 0] })
    const shares = emit.op('GatherND', [emit.op('Reshape', [weights, emit.ints([-1, count])]), where])
    const summed = emit.op('MatMul', [
      emit.op('Reshape', [shares, emit.ints([-1, 1, topK])]),
      emit.op('Reshape', [results, emit.ints([-1, topK, width])]),
    ])
    return [emit.op('Reshape', [summed, emit.op('Shape', [x])])]
  },
})

/**
 * dy, x, weights, selected and the matrices -> the gradients of x, weights and, where they are not frozen, the matrices. As in the forward pass, the
 * rows of each expert are gathered and its results brought together in the order of the positions, `topK` for each;
 * nothing is scattered. What is between the matrices is computed again rather than kept.
 */
const gradientOperation = defineOperation({
  name: 'expertsGradient',
  inputs: ['dy', 'x', 'weights', 'selected', 'matrices...'],
  outputs: ['dx', 'dweights', 'dmatrices...'],
  attributes: z.strictObject({
    topK: count,
    /** How the matrices are stored where they are frozen. Default: each is one tensor, and has a gradient. */
    frozen: z.array(storedMatrix).readonly().optional(),
  }),
  infer: ([, x, weights, , ...tensors], { frozen }) =>
    [x, weights, ...(frozen ? [] : tensors)].map(({ shape }) => ({ dtype: 'float32' as const, shape })),
  onnx(emit, [dy, x, weights, selected, ...tensors], { topK, frozen }, node) {
    const width = lastDim(node.inputs[1])
    const count = (frozen ?? tensors).length / 3
    const rows = (name: string) => emit.op('Reshape', [name, emit.ints([-1, width])])
    const [allX, allDy] = [rows(x), rows(dy)]
    const assigned = assignments(emit, selected, count)
    const mul = (a: string, b: string) => emit.op('Mul', [a, b])
    const add = (a: string, b: string) => emit.op('Add', [a, b])
    const product = (a: string, b: string, transA: 0 | 1, transB: 0 | 1) =>
      fusedMatMul(emit, a, b, { transA: transA === 1, transB: transB === 1 })
    const cells = emit.op('Transpose', [emit.op('NonZero', [assigned.byExpert])], { perm: [1, 0] })
    const flatWeights = emit.op('Reshape', [weights, emit.ints([-1, count])])
    const shares = emit.op('Unsqueeze', [
      emit.op('GatherND', [emit.op('Transpose', [flatWeights], { perm: [1, 0] }), cells]),
      emit.ints([-1]),
    ])
    const [dxs, dShares, dMatrices]: [string[], string[], string[]] = [[], [], []]
    let at = 0
    for (let expert = 0; expert < count; expert++) {
      const index = assigned.part(emit, assigned.positions, expert)
      const share = assigned.part(emit, shares, expert)
      const [mine, d] = [allX, allDy].map((all) => emit.op('Gather', [all, index], { axis: 0 }))
      const [gate, up, down] = [0, 1, 2].map((which) => {
        const matrix = frozen?.[3 * expert + which]
        const stored = tensors.slice(at, at + (matrix?.inputs ?? 1))
        at += stored.length
        return matrix ? emitFloatMatrix(emit, stored, matrix, mine) : stored[0]
      })
      const [gated, upped] = [gate, up].map((matrix) => product(mine, matrix, 0, 1))
      // y = share * down(inner), inner = silu(gated) * upped; s = sigmoid(gated), silu' = s + silu (1 - s).
      const s = emit.op('Sigmoid', [gated])
      const silu = mul(gated, s)
      const inner = mul(silu, upped)
      const back = product(d, down, 0, 0)
      dShares.push(emit.op('ReduceSum', [mul(inner, back), emit.ints([-1])], { keepdims: 0 }))
      const dInner = mul(back, share)
      const dUpped = mul(dInner, silu)
      const slope = add(s, emit.op('Sub', [silu, mul(silu, s)]))
      const dGated = mul(mul(dInner, upped), slope)
      if (!frozen)
        dMatrices.push(product(dGated, mine, 1, 0), product(dUpped, mine, 1, 0), product(d, mul(inner, share), 1, 0))
      dxs.push(add(product(dGated, gate, 0, 0), product(dUpped, up, 0, 0)))
    }
    const byPosition = emit.op('Reshape', [
      assigned.byPosition(emit.op('Concat', dxs, { axis: 0 })),
      emit.ints([-1, topK, width]),
    ])
    const dx = emit.op('ReduceSum', [byPosition, emit.ints([1])], { keepdims: 0 })
    const zeros = emit.op('ConstantOfShape', [emit.op('Shape', [assigned.byExpert])])
    const dWeights = emit.op('ScatterND', [zeros, cells, emit.op('Concat', dShares, { axis: 0 })])
    return [
      emit.op('Reshape', [dx, emit.op('Shape', [x])]),
      emit.op('Reshape', [emit.op('Transpose', [dWeights], { perm: [1, 0] }), emit.op('Shape', [weights])]),
      ...dMatrices,
    ]
  },
})

const splitInto = (count: number) => ({ outputs: count, attributes: { axis: 0, num_outputs: count } })

/** What of the positions goes to which expert, from `selected` [..., count]. Rows "by expert" are those of expert 0, then 1 ... */
function assignments(emit: Emitter, selected: string, count: number) {
  const choice = emit.op('Reshape', [selected, emit.ints([-1, count])])
  const byExpert = emit.op('Transpose', [choice], { perm: [1, 0] })
  const cells = emit.op('NonZero', [byExpert])
  const positions = emit.op('Squeeze', [emit.op('Gather', [cells, emit.ints([1])], { axis: 0 }), emit.ints([0])])
  const sizes = emit.op('Cast', [emit.op('ReduceSum', [byExpert, emit.ints([1])], { keepdims: 0 })], { to: 7 })
  const ends = emit.op('CumSum', [sizes, emit.int(0)])
  const start = emit.node('Split', [emit.op('Sub', [ends, sizes])], splitInto(count))
  const end = emit.node('Split', [ends], splitInto(count))
  return {
    /** [positions, count] and [count, positions]. */
    choice,
    byExpert,
    /** Number of positions of each expert, int64 [count]. */
    sizes,
    /** Position of each row by expert. */
    positions,
    /** An expert's part of something by expert. */
    part: (body: Emitter, all: string, expert: number) => body.op('Slice', [all, start[expert], end[expert]]),
    /** Rows by expert in the order of their positions, those of one position by expert. */
    byPosition(rows: string): string {
      const total = emit.op('Size', [positions])
      const range = emit.op('Range', [emit.int(0), total, emit.int(1)])
      const keys = emit.op('Add', [emit.op('Mul', [positions, total]), range])
      const all = emit.op('Reshape', [total, emit.ints([1])])
      const [, order] = emit.node('TopK', [keys, all], { outputs: 2, attributes: { axis: 0, largest: 0, sorted: 1 } })
      return emit.op('Gather', [rows, order], { axis: 0 })
    },
  }
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
