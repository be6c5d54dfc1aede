// The training objective of a model as a traced program: noised and clean copies in, loss and gradients out.
// Knows nothing about optimisers, files or where it runs.
import { blockCausal, blockDiffusion, fullAttention } from '../diffusion/attention.ts'
import { gradients } from '../graph/gradient.ts'
import { crossEntropy } from '../graph/ops/cross-entropy.ts'
import { add, mul } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { gatherRows, reshape, slice } from '../graph/ops/layout.ts'
import type { Program } from '../graph/program.ts'
import { product } from '../graph/shape.ts'
import { lastDim, type Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/types.ts'
import { createWeights } from '../nn/weights.ts'
import type { WeightFormat } from '../types.ts'
import { balanceLoss, countedPositions, expertLoad, type RoutingOptions, untrained } from './routing.ts'

/** What the model is trained on. */
export type Objective =
  /** `[x_t(1) ... x_t(K) ; x_0]` under the block-diffusion mask. */
  | { kind: 'bdlm'; blockSize: number; copies: number; aligned: boolean }
  /** Noised copies alone, bidirectional within a document. */
  | { kind: 'mdlm'; copies: number }
  /** Next-token prediction under a causal mask. */
  | { kind: 'ar' }

export interface ObjectiveShape {
  rows: number
  length: number
}

/** Copies of each row that the program's input holds. */
export const inputCopies = (objective: Objective): number =>
  objective.kind === 'bdlm' ? objective.copies + 1 : objective.kind === 'mdlm' ? objective.copies : 1

export interface ObjectiveOptions {
  gradients: boolean
  /** Activations within a layer are computed again in the backward pass instead of being kept. Default false. */
  gradientCheckpointing?: boolean
  /** Adds the input `embedding_noise`, which is added to the embedding output. */
  embeddingNoise: boolean
  /** How mixtures of experts are trained. Default: with everything else, without balancing. */
  routing?: RoutingOptions
  /** The weights that are quantised, for a program without gradients. Default none. */
  formats?: ReadonlyMap<string, WeightFormat>
}

/**
 * Inputs: `input_ids`, `position_ids` [copies * rows, length]; `document_ids` [rows, length]; `loss_index` [M] into the
 * flattened positions, `labels` [M] (all int64), `loss_weights` [M]; with embedding noise `embedding_noise`
 * [copies * rows, length, H]. Outputs: `loss`, `nll` [M] and, when asked for, `grad.<parameter>` of the trained ones and
 * of mixtures of experts `expert_load` [layers, experts], the positions that each expert got (padding is not counted; in
 * the last layer they are those that carry loss), and with an auxiliary loss `router_aux_loss`, which is not part of `loss`.
 */
export function objectiveProgram(
  model: Model,
  objective: Objective,
  { rows, length }: ObjectiveShape,
  options: ObjectiveOptions,
): Program {
  const copies = inputCopies(objective)
  const ids = input('input_ids', 'int64', [copies * rows, length])
  const positions = input('position_ids', 'int64', [copies * rows, length])
  const documents = input('document_ids', 'int64', [rows, length])
  const index = input('loss_index', 'int64', ['M'])
  const labels = input('labels', 'int64', ['M'])
  const lossWeights = input('loss_weights', 'float32', ['M'])
  const layout = { documents, positions: slice(positions, 0, 0, rows) }
  const { dimensions } = model
  const attention =
    objective.kind === 'bdlm'
      ? blockDiffusion(layout, objective, dimensions)
      : objective.kind === 'mdlm'
        ? fullAttention(layout, objective.copies, dimensions)
        : blockCausal(layout, 1, dimensions)
  const noise = options.embeddingNoise
    ? input('embedding_noise', 'float32', [copies * rows, length, model.dimensions.hiddenSize])
    : undefined
  const weights = createWeights(model.parameters, options.formats)
  const { hidden, head, routing } = model.trace(weights, {
    ids,
    positions,
    positionCount: length,
    attention,
    embeddings: noise && ((h) => add(h, noise)),
    select: (x) => gatherRows(flatten(x), index),
  })
  const { loss, nll } = crossEntropy(hidden, head, labels, lossWeights)
  const outputs: Record<string, Tensor> = { loss, nll }
  if (options.gradients) {
    const { auxLossCoefficient = 0 } = options.routing ?? {}
    let total = loss
    if (routing.length > 0) {
      const counted = countedPositions(documents, lossWeights, copies)
      outputs.expert_load = expertLoad(routing, counted)
      if (auxLossCoefficient > 0) {
        outputs.router_aux_loss = balanceLoss(routing, counted)
        total = add(loss, mul(outputs.router_aux_loss, auxLossCoefficient))
      }
    }
    const fixed = untrained(model, options.routing ?? {})
    const used = [...weights.used].filter(([name]) => !fixed.has(name))
    const all = gradients(
      total,
      used.map(([, tensor]) => tensor),
      options.gradientCheckpointing ? { segment: layerOf } : {},
    )
    used.forEach(([name], i) => {
      outputs[`grad.${name}`] = all[i]
    })
  }
  return { name: `${model.config.model_type}-${objective.kind}`, outputs }
}

/** The layer that a scope such as `model.layers.3.self_attn` lies in: up to the first number, whatever layers are called. */
export const layerOf = (scope: string): string | undefined => /^model(\.[a-z_]+)+\.\d+/.exec(scope)?.[0]

const flatten = (x: Tensor): Tensor => reshape(x, [product(x.shape.slice(0, -1)), lastDim(x)])
