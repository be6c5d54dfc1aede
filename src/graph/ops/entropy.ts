// The entropy of predictions that are right, as a loss: it makes a model sure of what it knows already.
import { none } from '../attributes.ts'
import { defineOperation } from '../registry.ts'
import { apply, apply1, type Tensor } from '../tensor.ts'
import { add, exp, mul, neg, sub } from './elementwise.ts'
import { reshape } from './layout.ts'
import { sum } from './reduce.ts'

const logSoftmaxOperation = defineOperation({
  name: 'logSoftmax',
  inputs: ['x'],
  outputs: ['y'],
  attributes: none,
  infer: ([x]) => [{ dtype: 'float32', shape: x.shape }],
  gradient: ({ inputs: [x], outputs: [y], gradients: [dy] }) => [
    sub(dy as Tensor, mul(exp(y), sum(dy as Tensor, [x.shape.length - 1], true))),
  ],
  onnx: (emit, inputs) => [emit.op('LogSoftmax', inputs, { axis: -1 })],
})

const entropyOperation = defineOperation({
  name: 'entropyOfRight',
  inputs: ['logProbabilities', 'labels', 'weights'],
  outputs: ['entropy', 'right', 'coefficients'],
  attributes: none,
  infer([logProbabilities, labels, weights], _, fail) {
    const [rows] = logProbabilities.shape
    if (logProbabilities.shape.length !== 2) fail('log-probabilities must be [positions, vocabulary]')
    if (labels.dtype !== 'int64' || labels.shape.length !== 1 || labels.shape[0] !== rows)
      fail('labels must be int64, one per position')
    if (weights.shape.length !== 1 || weights.shape[0] !== rows) fail('weights must be one per position')
    return [
      { dtype: 'float32', shape: [] },
      { dtype: 'float32', shape: [] },
      { dtype: 'float32', shape: weights.shape },
    ]
  },
  // With l = log p: d(-sum_v p l)/dl = -p (l + 1). Which predictions are right is constant almost everywhere.
  gradient({ inputs: [logProbabilities, , weights], outputs: [, , coefficients], gradients: [dy] }) {
    const scale = mul(reshape(coefficients, [weights.shape[0], 1]), neg(dy as Tensor))
    return [mul(mul(scale, exp(logProbabilities)), add(logProbabilities, 1)), undefined, undefined]
  },
  onnx(emit, [logProbabilities, labels, weights]) {
    const token = emit.op('ArgMax', [logProbabilities], { axis: 1, keepdims: 0 })
    const isRight = emit.op('Cast', [emit.op('Equal', [token, labels])], { to: 1 })
    const weighted = emit.op('Mul', [isRight, weights])
    const total = (x: string) => emit.op('ReduceSum', [x], { keepdims: 0 })
    const right = total(weighted)
    // Where nothing is right the numerator is 0 too.
    const mean = emit.op('Div', [total(weights), emit.op('Max', [right, emit.float(1e-20)])])
    const coefficients = emit.op('Mul', [weighted, mean])
    const terms = emit.op('Mul', [emit.op('Exp', [logProbabilities]), logProbabilities])
    const entropies = emit.op('Neg', [emit.op('ReduceSum', [terms, emit.ints([1])], { keepdims: 0 })])
    return [total(emit.op('Mul', [coefficients, entropies])), right, coefficients]
  },
})

/**
 * The weighted mean entropy, in nats, of the predictions that are right, times the sum of all weights; 0 where none is.
 * Right is a position whose most probable token is its label. `temperature` divides the logits before the softmax.
 *
 * logProbabilities [M, V], labels [M] (int64), weights [M] -> { entropy [], right [] }: `right` is the weight of the
 * predictions that are right, which has no gradient.
 */
export function entropyOfRight(
  logProbabilities: Tensor,
  labels: Tensor,
  weights: Tensor,
  temperature = 1,
): { entropy: Tensor; right: Tensor } {
  const tempered =
    temperature === 1 ? logProbabilities : apply1(logSoftmaxOperation, [mul(logProbabilities, 1 / temperature)], null)
  const [entropy, right] = apply(entropyOperation, [tempered, labels, weights], null)
  return { entropy, right }
}
