// The most probable token of each position and its probability, inside the graph, so that no logits are copied out.
import { none } from '../attributes.ts'
import { defineOperation } from '../registry.ts'
import { apply, type Tensor } from '../tensor.ts'

const predictOperation = defineOperation({
  name: 'predict',
  inputs: ['logits', 'bias', 'scale'],
  outputs: ['token', 'confidence'],
  attributes: none,
  infer([logits, bias, scale], _, fail) {
    if (logits.shape.length !== 2) fail('logits must be [positions, vocabulary]')
    if (bias.shape.length !== 1 || bias.shape[0] !== logits.shape[1]) fail('the bias must be one per token')
    if (scale.shape.length !== 1 || scale.shape[0] !== logits.shape[0]) fail('the scale must be one per position')
    return [
      { dtype: 'int64', shape: [logits.shape[0]] },
      { dtype: 'float32', shape: [logits.shape[0]] },
    ]
  },
  // One buffer of that size beside the logits: every step after the first can write where it reads.
  onnx(emit, [logits, bias, scale]) {
    const scores = emit.op('Add', [emit.op('Mul', [logits, emit.op('Unsqueeze', [scale, emit.ints([1])])]), bias])
    // Not TopK, which dies of a division by zero where there are no rows.
    const token = emit.op('ArgMax', [scores], { axis: 1 })
    const best = emit.op('GatherElements', [scores, token], { axis: 1 })
    // exp(0) / sum(exp(x - max)), the softmax of the best.
    const exponentials = emit.op('Exp', [emit.op('Sub', [scores, best])])
    const sum = emit.op('ReduceSum', [exponentials, emit.ints([1])], { keepdims: 0 })
    return [emit.op('Squeeze', [token, emit.ints([1])]), emit.op('Reciprocal', [sum])]
  },
})

/** argmax and max of softmax(logits * scale + bias): logits [R, V], bias [V] (-inf forbids a token), scale [R]. */
export function predict(logits: Tensor, bias: Tensor, scale: Tensor): { token: Tensor; confidence: Tensor } {
  const [token, confidence] = apply(predictOperation, [logits, bias, scale], null)
  return { token, confidence }
}
