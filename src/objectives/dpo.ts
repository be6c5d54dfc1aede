// Direct preference optimisation (DPO; Rafailov et al., 2023): the chosen answer of a pair becomes more probable than the
// rejected one, beside what a reference model says. Models of masked diffusion are measured by the bound of their likelihood,
// with one draw (LLaDA2.0, section 5.3) or several (VRPO; Zhu et al., 2025, arXiv 2505.19223); others by the likelihood itself.
import type { TensorData } from '../core/types.ts'
import { scoredIn } from '../data/scored.ts'
import type { Batch, Pair, PairLikelihoods } from '../data/types.ts'
import { drawPairs } from '../diffusion/noise.ts'
import { add, differs, mul, neg, softplus, sqrt, sub } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { reshape } from '../graph/ops/layout.ts'
import { matmul } from '../graph/ops/linear.ts'
import { sum } from '../graph/ops/reduce.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import { type ArVariant, ar } from './ar.ts'
import type { BoundSettings, Scored } from './denoising.ts'
import { float32 } from './feeds.ts'
import { type MdlmVariant, mdlm } from './mdlm.ts'
import { type TilesVariant, tiles } from './tiles.ts'
import type { MicroBatch, Objective, Sizes, TracedLoss } from './types.ts'

export interface PreferenceSettings {
  /** Weight of the log-ratio of model and reference: the higher, the nearer they stay. */
  beta: number
  /** Share of the pairs that may be labelled the wrong way round, in [0, 0.5). */
  labelSmoothing: number
  /** Draws of the noise for each answer. */
  draws: number
  /** Draws come in pairs; see `drawPairs`. */
  antithetic: boolean
  /** Log-likelihoods are per token of the answer. */
  lengthNormalization: boolean
}

/** What the likelihood of an answer is measured with. */
export interface LikelihoodSettings
  extends BoundSettings,
    Pick<PreferenceSettings, 'draws' | 'antithetic' | 'lengthNormalization'> {
  /** The model predicts the next token, so that there is nothing to draw. */
  exact: boolean
  /** Block size of the model; from the row length on, a block is a whole document. */
  blockSize: number
}

export interface DpoSettings extends PreferenceSettings, LikelihoodSettings {}

type LikelihoodVariant = ArVariant | TilesVariant | MdlmVariant

export interface DpoVariant {
  kind: 'dpo'
  /** The objective whose `nll` the likelihoods are sums of. */
  likelihood: LikelihoodVariant
  beta: number
  labelSmoothing: number
}

/** Which draws: those of the pairs' epochs, or those of held-out pairs. */
interface Drawing {
  seed: number
  heldOut?: boolean
}

function scored(batch: Batch, settings: LikelihoodSettings, drawing: Drawing): Scored<LikelihoodVariant> {
  if (settings.exact) return ar.score(batch)
  const noise = drawPairs(batch, { ...settings, ...drawing })
  return (settings.blockSize >= batch.length ? mdlm : tiles).score(batch, noise, settings)
}

/** The sums that likelihoods are: `answers` [2, N, M] times the nll of predictions is minus the log-likelihoods. */
function answerFeeds(
  batch: Batch,
  pairs: readonly Pair[],
  { microBatch: { feeds }, tokens }: Scored<unknown>,
  { exact, draws, lengthNormalization }: LikelihoodSettings,
): Record<string, TensorData> {
  const { rows, length, documents } = batch
  const weights = (feeds.loss_weights as TensorData).data as Float32Array
  const [count, width] = [pairs.length, weights.length]
  const answerOf = new Map<string, number>()
  const key = (token: number) => `${Math.floor(token / length)} ${documents[token]}`
  for (const [i, { chosen, rejected }] of pairs.entries()) {
    answerOf.set(key(chosen), i)
    answerOf.set(key(rejected), count + i)
  }
  const lengths = lengthNormalization ? [...answerOf.keys()].map(() => 0) : undefined
  if (lengths) for (const token of scoredIn(batch)) lengths[answerOf.get(key(token))!]!++
  const answers = new Float32Array(2 * count * width)
  for (const [i, token] of tokens.entries()) {
    const answer = answerOf.get(key(token % (rows * length)))
    if (answer === undefined) throw new Error('a document of the batch is of no pair')
    answers[answer * width + i] = weights[i]! / (exact ? 1 : draws) / (lengths?.[answer] ?? 1)
  }
  const part = (answer: number) =>
    float32([count, width], answers.slice(answer * count * width, (answer + 1) * count * width))
  return { chosen: part(0), rejected: part(1) }
}

function prepareDrawn(batch: Batch, settings: DpoSettings, drawing: Drawing): MicroBatch<DpoVariant> {
  const { pairs = [] } = batch
  const { beta, labelSmoothing } = settings
  const parts = scored(batch, settings, drawing)
  const { objective: likelihood, rows, length, feeds } = parts.microBatch
  const reference = (answer: keyof PairLikelihoods) =>
    float32(
      [pairs.length],
      Float32Array.from(pairs, (pair) => pair.reference?.[answer] ?? 0),
    )
  return {
    objective: { kind: 'dpo', likelihood, beta, labelSmoothing },
    rows,
    length,
    feeds: {
      ...feeds,
      ...answerFeeds(batch, pairs, parts, settings),
      reference_chosen: reference('chosen'),
      reference_rejected: reference('rejected'),
      pair_weights: float32([pairs.length], new Float32Array(pairs.length).fill(1)),
    },
    counts: { pair: pairs.length, loss_positions: parts.tokens.length, tokens: batch.tokens },
  }
}

/** The log-likelihoods of a prepared batch's pairs, from the nll of its predictions. */
export function pairLikelihoods({ feeds }: MicroBatch<DpoVariant>, nll: Float32Array): PairLikelihoods[] {
  const of = (name: keyof PairLikelihoods) => (feeds[name] as TensorData).data as Float32Array
  const count = (feeds.pair_weights as TensorData).shape[0]!
  const logLikelihood = (weights: Float32Array, pair: number) => {
    let total = 0
    for (let i = 0; i < nll.length; i++) total -= weights[pair * nll.length + i]! * nll[i]!
    return total
  }
  const [chosen, rejected] = [of('chosen'), of('rejected')]
  return Array.from({ length: count }, (_, pair) => ({
    chosen: logLikelihood(chosen, pair),
    rejected: logLikelihood(rejected, pair),
  }))
}

/** beta times the log-ratio of model and reference, for both answers. */
export const rewards = (model: PairLikelihoods, reference: PairLikelihoods, beta: number): PairLikelihoods => ({
  chosen: beta * (model.chosen - reference.chosen),
  rejected: beta * (model.rejected - reference.rejected),
})

/** The loss of a pair whose rewards differ by `margin`. */
export function preferenceLoss(margin: number, labelSmoothing: number): number {
  const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))
  return (1 - labelSmoothing) * softplus(-margin) + labelSmoothing * softplus(margin)
}

function traceLikelihood(model: Model, weights: Weights, variant: LikelihoodVariant, sizes: Sizes): TracedLoss {
  switch (variant.kind) {
    case 'ar':
      return ar.trace(model, weights, variant, sizes)
    case 'mdlm':
      return mdlm.trace(model, weights, variant, sizes)
    case 'tiles':
      return tiles.trace(model, weights, variant, sizes)
  }
}

/**
 * Inputs beside those of the likelihood's objective, for N pairs and M predictions: `chosen` and `rejected` [N, M], what the
 * nll of each prediction counts in the answer; `reference_chosen` and `reference_rejected` [N], log-likelihoods under the
 * reference; `pair_weights` [N]. Metrics, means over pairs: rewards of both answers, their margin, and the share of pairs in
 * which that of the chosen one is higher (a tie counts half).
 */
function trace(
  model: Model,
  weights: Weights,
  { likelihood, beta, labelSmoothing }: DpoVariant,
  sizes: Sizes,
): TracedLoss {
  const { nll, routing, counted } = traceLikelihood(model, weights, likelihood, sizes)
  const column = reshape(nll, [nll.shape[0]!, 1])
  const reward = (answer: keyof PairLikelihoods) => {
    const logLikelihood = neg(reshape(matmul(input(answer, 'float32', ['N', nll.shape[0]!]), column), ['N']))
    return mul(sub(logLikelihood, input(`reference_${answer}`, 'float32', ['N'])), beta)
  }
  const [chosen, rejected] = [reward('chosen'), reward('rejected')]
  const margin = sub(chosen, rejected)
  const ofPairs = input('pair_weights', 'float32', ['N'])
  const mean = (values: Tensor) => sum(mul(values, ofPairs), [0])
  const right = mul(softplus(neg(margin)), 1 - labelSmoothing)
  const loss = mean(labelSmoothing > 0 ? add(right, mul(softplus(margin), labelSmoothing)) : right)
  // x + |x| is 0 unless x is positive.
  const isPositive = differs(add(margin, sqrt(mul(margin, margin))), 0)
  const isTie = sub(1, differs(margin, 0))
  return {
    loss,
    nll,
    metrics: {
      chosen_reward: mean(chosen),
      rejected_reward: mean(rejected),
      reward_margin: mean(margin),
      reward_accuracy: mean(add(isPositive, mul(isTie, 0.5))),
    },
    routing,
    counted,
  }
}

/** The batches' documents are the answers of their pairs. Held-out pairs are measured with draws of their own. */
export const dpo = {
  prepare: (batch, { seed }, settings) => prepareDrawn(batch, settings, { seed }),
  measure: (batch, { seed, pairs }, settings) => [
    {
      microBatch: prepareDrawn(batch, { ...settings, draws: 2 * pairs }, { seed, heldOut: true }),
      tiles: undefined,
    },
  ],
  trace,
} satisfies Objective<DpoSettings, DpoVariant>
