// A training objective of a model as a traced program: a batch in, loss and gradients out.
// Knows nothing about optimisers, files or where it runs.

import type { WeightFormat } from '../core/types.ts'
import { gradients } from '../graph/gradient.ts'
import { add, mul } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import type { Program } from '../graph/program.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/types.ts'
import { createWeights } from '../nn/weights.ts'
import { objectives, type Variant } from '../objectives/index.ts'
import type { Objective as AnyObjective, Sizes } from '../objectives/types.ts'
import { balanceLoss, expertLoad, type RoutingOptions, untrained } from './routing.ts'

export interface ObjectiveOptions {
  gradients: boolean
  /** Activations within a layer are computed again in the backward pass instead of being kept. Default false. */
  gradientCheckpointing?: boolean
  /** How mixtures of experts are trained. Default: with everything else, without balancing. */
  routing?: RoutingOptions
  /** The weights that are quantised; they have no gradients. Default none. */
  formats?: ReadonlyMap<string, WeightFormat>
  /** Products with quantised weights are exact, as `createWeights` has it. Default false. */
  exact?: boolean
  /** Low-rank weights by name, which are trained alone. Default: there are none, and the model's own are trained. */
  adapter?: ReadonlyMap<string, readonly number[]>
  /** What the low-rank products are multiplied with at every position. Default: the objective says where they act. */
  loraScale?: number | undefined
}

/**
 * Inputs: those of the objective, and the weights by name. Outputs: `loss`; without gradients `nll` [M]; with them
 * `grad.<parameter>` of the trained ones, the objective's metrics and, of mixtures of experts, `expert_load`
 * [layers, experts], the positions that each expert got (padding is not counted; in the last layer they are those that carry
 * loss). With an auxiliary loss also `router_aux_loss`, which is not part of `loss`, and the scalar input `step_share`: the
 * share of the step's tokens that this micro-batch holds, with which it is weighed. It balances within the micro-batch, as
 * transformers does.
 */
export function objectiveProgram(model: Model, variant: Variant, sizes: Sizes, options: ObjectiveOptions): Program {
  const { name, objective, nll, reported, trained } = traced(model, variant, sizes, options)
  if (!options.gradients) return { name, outputs: { loss: reported.loss!, nll } }

  const outputs = { ...reported }
  const derivatives = gradients(
    objective,
    trained.map(([, tensor]) => tensor),
    options.gradientCheckpointing ? { segment: layerOf } : {},
  )
  trained.forEach(([name], i) => {
    outputs[`grad.${name}`] = derivatives[i]!
  })
  return { name, outputs }
}

/**
 * The same for an executor that differentiates programs itself: in place of gradients there is `objective`, what they are of,
 * and `nll` [M].
 */
export function lossProgram(
  model: Model,
  variant: Variant,
  sizes: Sizes,
  options: Omit<ObjectiveOptions, 'gradients' | 'gradientCheckpointing'>,
): Program {
  const { name, objective, nll, reported } = traced(model, variant, sizes, { ...options, gradients: true })
  return { name, outputs: { objective, nll, ...reported } }
}

/** An objective's parts: what is differentiated, what is reported, and the weights that are trained. */
function traced(model: Model, variant: Variant, sizes: Sizes, options: ObjectiveOptions) {
  const { adapter, formats, exact, loraScale } = options
  const all = createWeights(new Map([...model.parameters, ...(adapter ?? [])]), formats, { exact })
  const weights = loraScale === undefined ? all : all.gated(() => loraScale)
  const kind = objectives[variant.kind] as AnyObjective<unknown, Variant>
  const { loss, nll, metrics, routing, counted } = kind.trace(model, weights, variant, sizes)
  const name = `${model.config.model_type}-${variant.kind}`
  const reported: Record<string, Tensor> = { loss, ...metrics }
  const { auxLossCoefficient = 0 } = options.routing ?? {}
  let objective = loss
  if (options.gradients && routing.length > 0 && !adapter) {
    reported.expert_load = expertLoad(routing, counted)
    if (auxLossCoefficient > 0) {
      reported.router_aux_loss = mul(balanceLoss(routing, counted), input('step_share', 'float32', []))
      objective = add(loss, mul(reported.router_aux_loss, auxLossCoefficient))
    }
  }
  const fixed = untrained(model, options.routing ?? {})
  const isTrained = (name: string) => (adapter ? adapter.has(name) : !fixed.has(name))
  return { name, objective, nll, reported, trained: [...weights.used].filter(([name]) => isTrained(name)) }
}

/** The layer that a scope such as `model.layers.3.self_attn` lies in: up to the first number, whatever layers are called. */
export const layerOf = (scope: string): string | undefined => /^model(\.[a-z_]+)+\.\d+/.exec(scope)?.[0]
