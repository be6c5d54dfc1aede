// Next-token prediction under a causal mask: the state at i predicts token i + 1 of the same document.
import { scoredIn } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import { blockCausal } from '../diffusion/attention.ts'
import type { Scored } from './denoising.ts'
import { lossFeeds, rowFeeds } from './feeds.ts'
import { tokenLoss } from './token-loss.ts'
import type { MicroBatch, Objective } from './types.ts'

export interface ArVariant {
  kind: 'ar'
}

/** Prompts and padding carry no loss: what is trained on is what is scored. */
function prepare(batch: Batch): MicroBatch<ArVariant> {
  const { rows, length, ids } = batch
  const tokens = scoredIn(batch)
  const positions = { index: tokens.map((i) => i - 1), labels: tokens.map((i) => ids[i]!) }
  const weights = { loss: new Float32Array(tokens.length).fill(1) }
  return {
    objective: { kind: 'ar' },
    rows,
    length,
    feeds: { ...rowFeeds(batch, ids), ...lossFeeds(positions, weights, ids.length) },
    counts: { loss: tokens.length, loss_positions: tokens.length, tokens: batch.tokens },
  }
}

export const ar: Objective<unknown, ArVariant> & { score(batch: Batch): Scored<ArVariant> } = {
  prepare,
  /** As `score` of masked diffusion, but all of the likelihood. */
  score(batch: Batch): Scored<ArVariant> {
    const tokens = scoredIn(batch)
    return { microBatch: prepare(batch), tokens }
  },
  measure: (batch) => [{ microBatch: prepare(batch), tiles: undefined }],
  trace: (model, weights, _, sizes) =>
    tokenLoss(model, weights, {
      ...sizes,
      copies: 1,
      attend: (layout) => blockCausal(layout, 1, model.dimensions),
    }),
}
