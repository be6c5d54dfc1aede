// The likelihood of held-out batches in nats per token and bits per byte. Knows nothing about how it is computed.
import type { Batch } from '../data/types.ts'
import { maskableTokens } from '../diffusion/objective.ts'
import type { Evaluation, Trainer } from '../train/types.ts'

/**
 * NELBO at a block size with `samples` noise draws per batch, or the exact causal likelihood ('ar').
 * Bits per byte = nats per token x tokens / (bytes x ln 2): comparable across tokenizers.
 */
export async function likelihood(
  model: Pick<Trainer, 'evaluate'>,
  batches: readonly Batch[],
  options: { blockSize: number | 'ar'; seed: number; samples: number },
): Promise<Evaluation> {
  const { nll } = await model.evaluate(batches, options)
  const tokens = batches.reduce((sum, batch) => sum + maskableTokens(batch), 0)
  const bytes = batches.reduce((sum, batch) => sum + batch.bytes, 0)
  return { nll, tokens, bitsPerByte: (nll * tokens) / (bytes * Math.LN2) }
}
