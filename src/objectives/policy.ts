// Reinforcement learning along the trajectory of decoding (TraceRL, arXiv 2509.06949; CJ-GRPO): every token of an answer is
// scored in the state in which decoding committed it, with the tokens of its block that were there before it and masks for the
// others, behind clean blocks. The clipped objective of PPO, by token, with advantages within groups of answers (GRPO).
import type { TensorData } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import type { Noise } from '../diffusion/noise.ts'
import { add, differs, exp, mul, neg, sqrt, sub } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { sum } from '../graph/ops/reduce.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Model } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import type { BoundSettings } from './denoising.ts'
import { float32 } from './feeds.ts'
import { type TilesVariant, tiles } from './tiles.ts'
import type { MicroBatch, Objective, Sizes, TracedLoss } from './types.ts'

export interface PolicySettings extends Omit<BoundSettings, 'finalBlockSize'> {
  blockSize: number
  /** How far the probability of a token may move from that of the rollout, as a share, before it is left alone. */
  clip: number
}

export interface PolicyVariant {
  kind: 'policy'
  states: TilesVariant
}

/** Forward at which a token was decided that never was: behind all others. */
export const UNDECIDED = 2 ** 30

/**
 * The states of a trajectory as noised copies: copy k shows each block as it was before the k-th of the forwards that decided a
 * token of it that counts, and those tokens alone carry loss. As many copies as the block with most such forwards has.
 */
export function trajectoryNoise({ rows, length, documents, positions, rollouts }: Batch, blockSize: number): Noise {
  if (!rollouts) throw new Error('the batch holds no rollouts')
  const { steps, advantages } = rollouts
  const size = rows * length
  const counts = (i: number) => advantages[i] !== 0
  const stepsOf = new Map<number, number[]>()
  for (let start = 0; start < size; start += blockSize) {
    if (documents[start]! < 0) continue
    if (positions[start]! % blockSize !== 0) throw new Error('documents do not begin at multiples of the block size')
    const found = new Set<number>()
    for (let i = start; i < start + blockSize; i++) if (counts(i)) found.add(steps[i]!)
    if (found.size > 0)
      stepsOf.set(
        start,
        [...found].sort((a, b) => a - b),
      )
  }
  const copies = Math.max(1, ...[...stepsOf.values()].map((list) => list.length))
  const masked = new Uint8Array(copies * size)
  const unscored = new Uint8Array(copies * size).fill(1)
  for (const [start, list] of stepsOf)
    for (const [copy, step] of list.entries())
      for (let i = start; i < start + blockSize; i++) {
        if (steps[i]! < step) continue
        masked[copy * size + i] = 1
        if (steps[i] === step && counts(i)) unscored[copy * size + i] = 0
      }
  return { copies, masked, t: new Float32Array(copies * size).fill(1), elboWeight: undefined, unscored }
}

function prepare(batch: Batch, _: unknown, { clip, ...settings }: PolicySettings): MicroBatch<PolicyVariant> {
  const { nll, advantages } = batch.rollouts!
  const noise = trajectoryNoise(batch, settings.blockSize)
  const { microBatch, tokens } = tiles.score(batch, noise, { ...settings, finalBlockSize: settings.blockSize })
  const { loss_weights: weights, ...feeds } = microBatch.feeds
  const width = (weights as TensorData).shape[0]!
  const size = batch.rows * batch.length
  const each = (value: (token: number) => number) => {
    const out = new Float32Array(width)
    for (const [i, token] of tokens.entries()) out[i] = value(token % size)
    return float32([width], out)
  }
  return {
    ...microBatch,
    objective: { kind: 'policy', states: microBatch.objective },
    feeds: {
      ...feeds,
      loss_weights: each(() => 1),
      policy_weights: each(() => 1),
      old_nll: each((i) => nll[i]!),
      advantages: each((i) => advantages[i]!),
      limits: each((i) => 1 + Math.sign(advantages[i]!) * clip),
      signs: each((i) => Math.sign(advantages[i]!)),
    },
    counts: { policy: tokens.length, loss_positions: tokens.length, tokens: batch.tokens },
  }
}

/** 1 where x is above 0: x + |x| is 0 elsewhere. No gradient flows through it. */
const isPositive = (x: Tensor): Tensor => differs(add(x, sqrt(mul(x, x))), 0)

/**
 * Inputs beside those of `tiles`, all [M]: `old_nll` of each token when it was decided; `advantages` A, `signs` of them and
 * `limits` 1 + sign * clip; `policy_weights`. With r = exp(old_nll - nll) the loss is minus the mean of
 * min(r A, clamp(r, 1 - clip, 1 + clip) A): once r is beyond the limit on the side of its advantage, no gradient is left. Metrics:
 * `ratio`, the mean of r, and `clipped`, the share of tokens without gradient.
 */
function trace(model: Model, weights: Weights, { states }: PolicyVariant, sizes: Sizes): TracedLoss {
  const { nll, routing, counted } = tiles.trace(model, weights, states, sizes)
  const each = (name: string) => input(name, 'float32', [nll.shape[0]!])
  const [advantages, limits, ofTokens] = [each('advantages'), each('limits'), each('policy_weights')]
  const ratio = exp(sub(each('old_nll'), nll))
  const clipped = isPositive(mul(each('signs'), sub(ratio, limits)))
  const kept = add(mul(ratio, sub(1, clipped)), mul(limits, clipped))
  const mean = (values: Tensor) => sum(mul(values, ofTokens), [0])
  return {
    loss: neg(mean(mul(advantages, kept))),
    nll,
    metrics: { ratio: mean(ratio), clipped: mean(clipped) },
    routing,
    counted,
  }
}

/** The batches' documents are prompts with answers that a model has written. There is nothing to measure held-out text with. */
export const policy = { prepare, measure: () => [], trace } satisfies Objective<PolicySettings, PolicyVariant>
