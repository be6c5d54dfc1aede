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
  // A gradient of the nll adds to w; a gradient D of the log-probabilities adds D - P sum(D).
  gradient({ inputs: [hidden, head, labels, weights], outputs: [, , logProbabilities], gradients: [dy, dNll, dLog] }) {
    const p = apply1(expOperation, [logProbabilities], null)
    const w = gradientOfNll(weights, dy, dNll)
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

/** The gradient that arrives at the nll, directly and by the loss: [M, 1]. */
function gradientOfNll(weights: Tensor, dLoss: Tensor | undefined, dNll: Tensor | undefined): Tensor {
  const ofLoss = dLoss && mul(weights, dLoss)
  const all = ofLoss && dNll ? add(ofLoss, dNll) : (ofLoss ?? dNll)
  if (!all) throw new Error('crossEntropy: log-probabilities are differentiable beside the loss or the nll only')
  return reshape(all, [weights.shape[0], 1])
}

/** -log softmax(logits)[labels]. */
function negativeLogLikelihood(emit: Emitter, logits: string, labels: string) {
  const logProbabilities = emit.op('LogSoftmax', [logits], { axis: -1 })
  const index = emit.op('Unsqueeze', [labels, emit.ints([1])])
  const picked = emit.op('GatherElements', [logProbabilities, index], { axis: 1 })
  return { nll: emit.op('Neg', [emit.op('Squeeze', [picked, emit.ints([1])])]), logProbabilities }
}

const logitsOperation = defineOperation({
  name: 'logitsCrossEntropy',
  inputs: ['logits', 'labels', 'weights'],
  outputs: ['loss', 'nll', 'logProbabilities'],
  attributes: none,
  infer: ([{ shape }]) => [
    { dtype: 'float32', shape: [] },
    { dtype: 'float32', shape: [shape[0]] },
    { dtype: 'float32', shape },
  ],
  // d logits = w (P - Y); a gradient D of the log-probabilities adds D - P sum(D).
  gradient({ inputs: [, labels, weights], outputs: [, , logProbabilities], gradients: [dy, dNll, dLog] }) {
    const p = apply1(expOperation, [logProbabilities], null)
    const w = gradientOfNll(weights, dy, dNll)
    const dLogits = mul(w, apply1(lessLabelsOperation, [p, labels], null))
    const others = dLog && sub(dLog, mul(p, sum(dLog, [1], true)))
    return [others ? add(dLogits, others) : dLogits, undefined, undefined]
  },
  onnx(emit, [logits, labels, weights]) {
    const { nll, logProbabilities } = negativeLogLikelihood(emit, logits, labels)
    const loss = emit.op('ReduceSum', [emit.op('Mul', [nll, weights])], { keepdims: 0 })
    return [loss, nll, logProbabilities]
  },
})

const lessLabelsOperation = defineOperation({
  name: 'lessLabels',
  inputs: ['probabilities', 'labels'],
  outputs: ['differences'],
  attributes: none,
  infer: ([{ shape }]) => [{ dtype: 'float32', shape }],
  onnx(emit, [probabilities, labels]) {
    const index = emit.op('Unsqueeze', [labels, emit.ints([1])])
    const minusOnes = emit.op('Expand', [emit.float(-1), emit.op('Shape', [index])])
    return [emit.op('ScatterElements', [probabilities, index, minusOnes], { axis: 1, reduction: 'add' })]
  },
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
 * differentiable beside one of the others. A quantised head has no gradient.
 */
export function crossEntropy(
  hidden: Tensor,
  head: Tensor,
  labels: Tensor,
  weights: Tensor,
): { loss: Tensor; nll: Tensor; logProbabilities: Tensor } {
  const logits = quantizedLinear(hidden, head, undefined)
  const [loss, nll, logProbabilities] = logits
    ? apply(logitsOperation, [logits, labels, weights], null)
    : apply(crossEntropyOperation, [hidden, head, labels, weights], null)
  return { loss, nll, logProbabilities }
}

const softOperation = defineOperation({
  name: 'softCrossEntropy',
  inputs: ['logits', 'targets', 'weights'],
  outputs: ['loss', 'logProbabilities'],
  attributes: none,
  infer([logits, targets, weights], _, fail) {
    if (targets.shape.join() !== logits.shape.join()) fail('targets must be [positions, vocabulary], as the logits')
    if (weights.shape.length !== 1 || weights.shape[0] !== logits.shape[0]) fail('weights must be one per position')
    return [
      { dtype: 'float32', shape: [] },
      { dtype: 'float32', shape: targets.shape },
    ]
  },
  // d logits = w (P - targets).
  gradient({ inputs: [, targets, weights], outputs: [, logProbabilities], gradients: [dy] }) {
    const w = mul(reshape(weights, [weights.shape[0], 1]), dy as Tensor)
    const p = apply1(expOperation, [logProbabilities], null)
    return [mul(w, sub(p, targets)), undefined, undefined]
  },
  onnx(emit, [logits, targets, weights]) {
    const logProbabilities = emit.op('LogSoftmax', [logits], { axis: -1 })
    const each = emit.op('ReduceSum', [emit.op('Mul', [targets, logProbabilities]), emit.ints([-1])], { keepdims: 0 })
    const loss = emit.op('Neg', [emit.op('ReduceSum', [emit.op('Mul', [each, weights])], { keepdims: 0 })])
    return [loss, logProbabilities]
  },
})

/**
 * -sum_i weights_i sum_v targets_iv log softmax(logits_i)_v, for logits and targets [M, V], rows of the latter summing to 1:
 * distillation. Only `logits` has a gradient.
 */
export const softCrossEntropy = (logits: Tensor, targets: Tensor, weights: Tensor): Tensor =>
  apply(softOperation, [logits, targets, weights], null)[0]

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
