// How mixtures of experts are trained: their load, the biases and the loss that balance it, what stays as it is.
// Knows what routers chose; it does not know how, nor what is learned.

import { type Parameter, UserError } from '../core/types.ts'
import { add, div, mul } from '../graph/ops/elementwise.ts'
import { concat, reshape } from '../graph/ops/layout.ts'
import { sum } from '../graph/ops/reduce.ts'
import { lastDim, type Tensor } from '../graph/tensor.ts'
import type { MixtureLayer, Model, Routing } from '../models/types.ts'

export interface RoutingOptions {
  /** Routers' matrices stay as they are. Default false. */
  freezeRouters?: boolean
  /** Step of the biases by which routers choose, after each update. Default 0: they stay as they are. */
  biasUpdateRate?: number
  /** Factor of the loss that balances the experts' load. Default 0: none. */
  auxLossCoefficient?: number
}

/** Throws UserError where the model has nothing that the options ask for. */
export function checkRouting({ mixtures }: Model, options: RoutingOptions): void {
  const { freezeRouters = false, biasUpdateRate = 0, auxLossCoefficient = 0 } = options
  const asked = [
    ...(freezeRouters ? ['router'] : []),
    ...(biasUpdateRate > 0 ? ['router_bias_update_rate'] : []),
    ...(auxLossCoefficient > 0 ? ['router_aux_loss_coef'] : []),
  ]
  if (asked.length > 0 && mixtures.length === 0)
    throw new UserError(`${asked.join(', ')}: the model has no mixture of experts; leave it out`)
  if (biasUpdateRate > 0 && mixtures.some(({ bias }) => bias === undefined))
    throw new UserError(
      'router_bias_update_rate: the routers have no bias (moe_router_enable_expert_bias); leave it out, or balance with router_aux_loss_coef',
    )
}

/** Names of the parameters that training leaves as they are: what no gradient reaches, and frozen routers. */
export const untrained = ({ buffers, mixtures }: Model, { freezeRouters }: RoutingOptions): ReadonlySet<string> =>
  new Set([...buffers, ...(freezeRouters ? mixtures.map(({ router }) => router) : [])])

/** Which positions count: [copies * rows, length] before the last attention, [M] behind it, 1 or 0. */
export interface Counted {
  positions: Tensor
  selected: Tensor
}

/** The positions that reached a router, as a factor on its rows. */
function countedRows(rows: Tensor, { positions, selected }: Counted): Tensor {
  const counted = rows.shape.length === 2 ? selected : positions
  return reshape(counted, [...counted.shape, 1])
}

const overRows = (x: Tensor): Tensor =>
  sum(
    x,
    x.shape.slice(0, -1).map((_, i) => i),
  )

/** Positions that each expert of each layer has got: [layers, experts]. The layers have the same number of experts. */
export function expertLoad(routing: readonly Routing[], counted: Counted): Tensor {
  const loads = routing.map(({ selected }) => overRows(mul(selected, countedRows(selected, counted))))
  return concat(
    loads.map((load) => reshape(load, [1, lastDim(load)])),
    0,
  )
}

/**
 * The load-balancing loss of Switch Transformer (2101.03961, equation 4) as transformers scales it: with f the share of
 * positions that go to an expert and P its mean score, E * sum(f P), which is the number of experts per position where
 * the load is even. Scores are those of a position divided by their sum (DeepSeek-V3, 2412.19437, equation 19). Mean over
 * the layers.
 */
export function balanceLoss(routing: readonly Routing[], counted: Counted): Tensor {
  const losses = routing.map(({ scores, selected }) => {
    const rows = countedRows(selected, counted)
    const count = add(sum(rows), 1e-20)
    const axis = scores.shape.length - 1
    const shares = div(overRows(mul(selected, rows)), count)
    const means = div(overRows(mul(div(scores, add(sum(scores, [axis], true), 1e-20)), rows)), count)
    return mul(sum(mul(shares, means)), lastDim(scores))
  })
  return mul(
    losses.reduce((a, b) => add(a, b)),
    1 / losses.length,
  )
}

/**
 * Moves the biases by which routers choose against the load: down by `rate` for an expert that got more than the mean, up
 * for one that got less (Wang et al., 2408.15664; DeepSeek-V3, 2412.19437, section 2.1.2). Replaces their parameters in
 * `values`; no gradient is concerned.
 */
export function balanceBiases(
  mixtures: readonly MixtureLayer[],
  load: readonly (readonly number[])[],
  rate: number,
  values: Map<string, Parameter>,
): void {
  mixtures.forEach(({ bias }, layer) => {
    const value = bias === undefined ? undefined : values.get(bias)
    if (bias === undefined || !value) return
    const mean = load[layer].reduce((a, b) => a + b, 0) / load[layer].length
    const data = value.data.map((x, expert) => x + rate * Math.sign(mean - load[layer][expert]))
    values.set(bias, { ...value, data })
  })
}

/** Metrics of mixtures of experts: one number per layer, and where they are few the share of every expert. */
export interface LoadMetrics {
  /** Load of the busiest expert over the mean load; 1 where the load is even. */
  expert_load_max: number[]
  /** Entropy of the shares over its largest value: 1 where the load is even, 0 where one expert has it all. */
  expert_load_entropy: number[]
  /** [layers][experts]. */
  expert_load?: number[][]
}

/** Shares beyond this many would make a line of metrics long. */
const MOST_SHARES = 256

const rounded = (value: number): number => Number(value.toPrecision(4))

export function loadMetrics(load: readonly (readonly number[])[]): LoadMetrics {
  const shares = load.map((layer) => {
    const total = layer.reduce((a, b) => a + b, 0)
    return layer.map((count) => (total > 0 ? count / total : 0))
  })
  const entropy = (layer: readonly number[]) =>
    layer.length > 1 ? layer.reduce((h, p) => (p > 0 ? h - p * Math.log(p) : h), 0) / Math.log(layer.length) : 1
  const size = shares.reduce((count, layer) => count + layer.length, 0)
  return {
    expert_load_max: shares.map((layer) => rounded(Math.max(...layer) * layer.length)),
    expert_load_entropy: shares.map((layer) => rounded(entropy(layer))),
    ...(size <= MOST_SHARES && { expert_load: shares.map((layer) => layer.map(rounded)) }),
  }
}
