// The most probable token of each position and its probability, inside the graph, so that no logits are copied out.
import { apply, type Operation, type Tensor } from '../tensor.ts'

const predictOperation: Operation<null> = {
  name: 'predict',
  infer([logits, bias, scale], _, fail) {
    if (logits.shape.length !== 2) fail('logits must be [positions, vocabulary]')
    if (bias.shape.length !== 1 || bias.shape[0] !== logits.shape[1]) fail('the bias must be one per token')
    if (scale.shape.length !== 1 || scale.shape[0] !== logits.shape[0]) fail('the scale must be one per position')
    return [
      { dtype: 'int64', shape: [logits.shape[0]] },
      { dtype: 'float32', shape: [logits.shape[0]] },
    ]
  },
  onnx(emit, [logits, bias, scale]) {
    const scores = emit.op('Add', [emit.op('Mul', [logits, emit.op('Unsqueeze', [scale, emit.ints([1])])]), bias])
    const token = emit.op('ArgMax', [scores], { axis: 1, keepdims: 0 })
    // Softmax is one of ONNX Runtime's fast kernels; ReduceLogSumExp is not, and rounds more.
    const probabilities = emit.op('Softmax', [scores], { axis: 1 })
    return [token, emit.op('ReduceMax', [probabilities, emit.ints([1])], { keepdims: 0 })]
  },
}

/** argmax and max of softmax(logits * scale + bias): logits [R, V], bias [V] (-inf forbids a token), scale [R]. */
export function predict(logits: Tensor, bias: Tensor, scale: Tensor): { token: Tensor; confidence: Tensor } {
  const [token, confidence] = apply(predictOperation, [logits, bias, scale], null)
  return { token, confidence }
}
