// Confidence-aware parallel training (CAP; LLaDA2.0, section 5.2, after dParallel): besides the loss of an objective, the
// entropy of its predictions at masks is made small where they are right, so that more of them pass the threshold of decoding.
import { add, mul } from '../graph/ops/elementwise.ts'
import { entropyOfRight } from '../graph/ops/entropy.ts'
import { input } from '../graph/ops/input.ts'
import type { Tensor } from '../graph/tensor.ts'

/** Plain data: part of what a program is traced for. */
export interface Confidence {
  /** Weight of the mean entropy beside the loss. */
  beta: number
  /** Divides the logits before the softmax whose entropy it is. */
  temperature: number
}

/** Name of the metric, of the count, and with `_weights` of the input: 1 for each mask that carries loss. */
export const CONFIDENCE = 'entropy'

/**
 * `loss` with `beta` times the mean entropy, in nats, at masks whose prediction is right; 0 where none is. Which are right is
 * known only behind the forward, so the mean is over a micro-batch, and those of a step are weighed by their masks. Input:
 * `entropy_weights` [M]. Metrics: `entropy`, and `mask_accuracy`, the share of masks whose prediction is right.
 */
export function withConfidence(
  loss: Tensor,
  { logProbabilities, labels }: { logProbabilities: Tensor; labels: Tensor },
  { beta, temperature }: Confidence,
): { loss: Tensor; metrics: Record<string, Tensor> } {
  const weights = input(`${CONFIDENCE}_weights`, 'float32', ['M'])
  const { entropy, right } = entropyOfRight(logProbabilities, labels, weights, temperature)
  return { loss: add(loss, mul(entropy, beta)), metrics: { [CONFIDENCE]: entropy, mask_accuracy: right } }
}
