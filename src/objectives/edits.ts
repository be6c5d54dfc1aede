// Block diffusion with wrong tokens in the noised copies, so that a model learns to correct tokens beside filling masks: tokens
// replaced at random (token to token; LLaDA2.1, arXiv 2602.08676), and the model's own predictions in place of masks (on-policy
// uniform training; DMax, arXiv 2604.08302). The loss is over all tokens that may be masked, right ones too, as in DMax's code.
import { differs } from '../graph/ops/elementwise.ts'
import { constant, input } from '../graph/ops/input.ts'
import { concat, gatherRows, reshape } from '../graph/ops/layout.ts'
import { linear } from '../graph/ops/linear.ts'
import { predict } from '../graph/ops/predict.ts'
import { product } from '../graph/shape.ts'
import { scope, type Tensor } from '../graph/tensor.ts'
import type { Model, ModelInput } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import { type DenoisingSettings, denoising } from './denoising.ts'
import { type TilesVariant, tileInputs, tileLayout } from './tiles.ts'
import { flatten, predictionLoss } from './token-loss.ts'
import type { Objective, Sizes, TracedLoss } from './types.ts'

export interface EditsVariant extends Omit<TilesVariant, 'kind'> {
  kind: 'edits'
  /** Never predicted: the mask token. */
  maskTokenId: number
  /** Forwards that fill masks with the model's own predictions, each from what the one before it left. */
  turns: number
}

/**
 * Inputs: those of `tiles`, and `own_index` [N], `token_sources` [P, B] (see `ownFeeds`). The forwards that predict are part of
 * the program, so that predictions are those of the weights that are trained; no gradient flows through them.
 */
function trace(model: Model, weights: Weights, variant: EditsVariant, sizes: Sizes): TracedLoss {
  const { embeddingNoise, parts, confidence, maskTokenId, turns } = variant
  const inputs = tileInputs(model, variant, sizes)
  const fill = turns > 0 ? ownPredictions(model, weights, inputs, maskTokenId) : undefined
  let ids = inputs.ids
  for (let turn = 0; turn < turns; turn++) ids = scope(`own${turn}`, () => fill!(ids))
  const counted = differs(ids, -1)
  return predictionLoss(model, weights, { ...inputs, ids, counted, embeddingNoise, parts, confidence })
}

/** From tokens to the same with the most probable one at every mask that the model fills. */
function ownPredictions(
  model: Model,
  weights: Weights,
  inputs: ModelInput,
  maskTokenId: number,
): (ids: Tensor) => Tensor {
  const index = input('own_index', 'int64', ['N'])
  const sources = input('token_sources', 'int64', inputs.ids.shape)
  const bias = new Float32Array(model.dimensions.vocabSize)
  bias[maskTokenId] = Number.NEGATIVE_INFINITY
  const forbidden = constant({ dtype: 'float32', shape: [bias.length], data: bias })
  return (ids) => {
    const { hidden, head } = model.trace(weights, { ...inputs, ids, select: (x) => gatherRows(flatten(x), index) })
    const { token } = predict(linear(hidden, head), forbidden, differs(index, -1))
    return gatherRows(concat([reshape(ids, [product(ids.shape)]), token], 0), sources)
  }
}

export const edits: Objective<DenoisingSettings, EditsVariant> = {
  ...denoising<EditsVariant>({
    ...tileLayout,
    variant: ({ blockSize, maskTokenId, noise: { ownPredictions = 0, ownTurns = 1 } }, { copies: _, ...noised }) => ({
      kind: 'edits',
      blockSize,
      maskTokenId: maskTokenId!,
      turns: ownPredictions > 0 ? ownTurns : 0,
      ...noised,
    }),
  }),
  trace,
}
