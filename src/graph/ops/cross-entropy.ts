// The output head and its cross-entropy at chosen positions, as one node: only these rows ever become logits.
import { none } from '../attributes.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { defineOperation } from '../registry.ts'
import { apply, apply1, type Tensor } from '../tensor.ts'
import { add, mul, neg, sub } from './elementwise.ts'
import { gatherRows, reshape, scatterAddRows } from './layout.ts'
import { matmul } from './linear.ts'
import { quantizedLinear } from './quantized.ts'
import { sum } from './reduce.ts'

const crossEntropyOperation = defineOperation({
  name: 'crossEntropy',
  inputs: ['hidden', 'head', 'labels', 'weights'],
  outputs: ['loss', 'nll', 'logProbabilities'],
  attributes: none,
  infer([hidden, head, labels, weights], _, fail) {
    if (hidden.shape.length !== 2 || head.shape.length !== 2 || hidden.shape[1] !== head.shape[1])
      fail('hidden must be [positions, H] and the head [vocabulary, H]')
    if (labels.dtype !== 'int64' || labels.shape.length !== 1 || labels.shape[0] !== hidden.shape[0])
      fail('labels must be int64, one per position')
    if (weights.shape.length !== 1 || weights.shape[0] !== hidden.shape[0]) fail('weights must be one per position')
    const rows = hidden.shape[0]
    return [
      { dtype: 'float32', shape: [] },
      { dtype: 'float32', shape: [rows] },
      { dtype: 'float32', shape: [rows, head.shape[0]] },
    ]
  },
  // With P = softmax(logits) and one-hot labels Y: d logits = w (P - Y). Y never becomes a matrix:
  // d hidden = w (P E - E[labels]); d E = P^T (w hidden) - scatter(labels, w hidden).
  // A gradient D of the log-probabilities adds D - P sum(D).
  gradient({ inputs: [hidden, head, labels, weights], outputs: [, , logProbabilities], gradients: [dy, dNll, dLog] }) {
    if (dNll || !dy) throw new Error('crossEntropy: only the weighted sum and the log-probabilities are differentiable')
    const p = apply1(expOperation, [logProbabilities], null)
    const w = mul(reshape(weights, [weights.shape[0], 1]), dy)
    const weighted = mul(w, hidden)
    if (dLog) {
      const matrix = add(mul(p, sub(w, sum(dLog, [1], true))), dLog)
      const dHidden = sub(matmul(matrix, head), mul(w, gatherRows(head, labels)))
      const others = matmul(matrix, hidden, { transposeA: true })
      return [dHidden, scatterAddRows(head.shape, labels, neg(weighted), others), undefined, undefined]
    }
    const dHidden = mul(w, sub(matmul(p, head), gatherRows(head, labels)))
    const dHead = scatterAddRows(head.shape, labels, neg(weighted), matmul(p, weighted, { transposeA: true }))
    return [dHidden, dHead, undefined, undefined]
  },
  onnx(emit, [hidden, head, labels, weights]) {
    const logits = emit.op('Gemm', [hidden, head], { transB: 1 })
    const { nll, logProbabilities } = negativeLogLikelihood(emit, logits, labels)
    const loss = emit.op('ReduceSum', [emit.op('Mul', [nll, weights])], { keepdims: 0 })
    return [loss, nll, logProbabilities]
  },
})

/** -log softmax(logits)[labels]. */
function negativeLogLikelihood(emit: Emitter, logits: string, labels: string) {
  const logProbabilities = emit.op('LogSoftmax', [logits], { axis: -1 })
  const index = emit.op('Unsqueeze', [labels, emit.ints([1])])
  const picked = emit.op('GatherElements', [logProbabilities, index], { axis: 1 })
  return { nll: emit.op('Neg', [emit.op('Squeeze', [picked, emit.ints([1])])]), logProbabilities }
}

const likelihoodOperation = defineOperation({
  name: 'negativeLogLikelihood',
  inputs: ['logits', 'labels'],
  outputs: ['nll'],
  attributes: none,
  infer: ([logits]) => [{ dtype: 'float32', shape: [logits.shape[0]] }],
  onnx: (emit, [logits, labels]) => [negativeLogLikelihood(emit, logits, labels).nll],
})

const expOperation = defineOperation({
  name: 'softmaxFromLog',
  inputs: ['logProbabilities'],
  outputs: ['probabilities'],
  attributes: none,
  infer: ([x]) => [{ dtype: 'float32', shape: x.shape }],
  onnx: (emit, inputs) => [emit.op('Exp', inputs)],
})

/**
 * loss = sum_i weights_i * nll_i with nll_i = -log softmax(hidden_i head^T)[labels_i].
 * hidden [M, H], head [V, H], labels [M] (int64), weights [M] -> { loss [], nll [M], logProbabilities [M, V] }; the last is
 * differentiable beside the loss. If the head is quantised there are neither gradients nor log-probabilities.
 */
export function crossEntropy(
  hidden: Tensor,
  head: Tensor,
  labels: Tensor,
  weights: Tensor,
): { loss: Tensor; nll: Tensor; logProbabilities?: Tensor } {
  const logits = quantizedLinear(hidden, head, undefined)
  if (logits) {
    const nll = apply1(likelihoodOperation, [logits, labels], null)
    return { loss: sum(mul(nll, weights), [0]), nll }
  }
  const [loss, nll, logProbabilities] = apply(crossEntropyOperation, [hidden, head, labels, weights], null)
  return { loss, nll, logProbabilities }
}

const softOperation = defineOperation({
  name: 'softCrossEntropy',
  inputs: ['hidden', 'head', 'targets', 'weights'],
  outputs: ['loss', 'logProbabilities'],
  attributes: none,
  infer([hidden, head, targets, weights], _, fail) {
    const [rows] = hidden.shape
    if (hidden.shape.length !== 2 || head.shape.length !== 2 || hidden.shape[1] !== head.shape[1])
      fail('hidden must be [positions, H] and the head [vocabulary, H]')
    if (targets.shape.length !== 2 || targets.shape[0] !== rows || targets.shape[1] !== head.shape[0])
      fail('targets must be [positions, vocabulary]')
    if (weights.shape.length !== 1 || weights.shape[0] !== rows) fail('weights must be one per position')
    return [
      { dtype: 'float32', shape: [] },
      { dtype: 'float32', shape: targets.shape },
    ]
  },
  // d logits = w (P - targets). The head is frozen where there is something to distil.
  gradient({ inputs: [hidden, head, targets, weights], outputs: [, logProbabilities], gradients: [dy] }) {
    const w = mul(reshape(weights, [weights.shape[0], 1]), dy as Tensor)
    const p = apply1(expOperation, [logProbabilities], null)
    const dHidden = mul(w, matmul(sub(p, targets), head))
    return [reshape(dHidden, hidden.shape), undefined, undefined, undefined]
  },
  onnx(emit, [hidden, head, targets, weights]) {
    const logProbabilities = emit.op('LogSoftmax', [emit.op('Gemm', [hidden, head], { transB: 1 })], { axis: -1 })
    const each = emit.op('ReduceSum', [emit.op('Mul', [targets, logProbabilities]), emit.ints([-1])], { keepdims: 0 })
    const loss = emit.op('Neg', [emit.op('ReduceSum', [emit.op('Mul', [each, weights])], { keepdims: 0 })])
    return [loss, logProbabilities]
  },
})

/**
 * -sum_i weights_i sum_v targets_iv log softmax(hidden_i head^T)_v, for targets [M, V] whose rows sum to 1: distillation.
 * Only `hidden` has a gradient.
 */
export const softCrossEntropy = (hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor): Tensor =>
  apply(softOperation, [hidden, head, targets, weights], null)[0]

const softmaxOperation = defineOperation({
  name: 'softmax',
  inputs: ['x'],
  outputs: ['y'],
  attributes: none,
  infer: ([x]) => [{ dtype: 'float32', shape: x.shape }],
  onnx: (emit, inputs) => [emit.op('Softmax', inputs, { axis: -1 })],
})

/** Softmax over the last axis, of something that no gradient flows through. */
export const softmax = (x: Tensor): Tensor => apply1(softmaxOperation, [x], null)
