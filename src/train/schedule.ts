// Learning rate over a run, as a function of the share of its tokens that is done. Knows nothing about steps or models.
import { UserError } from '../core/types.ts'

/** Names follow dFactory's configuration (`lr`, `lr_min`, `lr_warmup_ratio`, `lr_decay_style`, `lr_decay_ratio`). */
export interface LearningRateOptions {
  /** Peak learning rate. */
  lr: number
  /** Learning rate at the end of `cosine` and `wsd`. Default 0. */
  lrMin?: number
  /** Share of the tokens over which the rate rises linearly from 0. Default 0.03. */
  lrWarmupRatio?: number
  /** `cosine` falls over everything after the warmup, `wsd` linearly at the end, `constant` never. Default cosine. */
  lrDecayStyle?: 'cosine' | 'wsd' | 'constant'
  /** Share of the tokens, at the end, over which `wsd` decays. Default 0.2. */
  lrDecayRatio?: number
}

/** Throws UserError naming the key that is out of range. */
export function checkLearningRate(options: LearningRateOptions): void {
  const { lr, lrMin = 0, lrWarmupRatio = 0.03, lrDecayRatio = 0.2 } = options
  if (!(lr > 0 && Number.isFinite(lr))) throw new UserError(`lr is ${lr}; give a number above 0.`)
  if (!(lrMin >= 0 && lrMin <= lr)) throw new UserError(`lr_min is ${lrMin}; give a number from 0 to lr, ${lr}.`)
  for (const [key, ratio] of [
    ['lr_warmup_ratio', lrWarmupRatio],
    ['lr_decay_ratio', lrDecayRatio],
  ] as const) {
    if (!(ratio >= 0 && ratio <= 1)) throw new UserError(`${key} is ${ratio}; give a share from 0 to 1.`)
  }
}

/**
 * The learning rate of an update, from the shares of the run's tokens that are done before and after it: the warmup is taken
 * where the update ends, the fall where it begins, so that neither the first nor the last update has a rate of 0. With w the
 * warmup's share, lr * after / w while after < w; then lr_min + (lr - lr_min) * f, where f is 1 for `constant`,
 * (1 + cos(pi x)) / 2 with x = (before - w) / (1 - w) for `cosine`, and 1 - x with x = (before - s) / (1 - s) and
 * s = max(w, 1 - lr_decay_ratio) for `wsd`, x being at least 0.
 */
export function learningRateAt(before: number, after: number, options: LearningRateOptions): number {
  const { lr, lrMin = 0, lrWarmupRatio = 0.03, lrDecayStyle = 'cosine', lrDecayRatio = 0.2 } = options
  if (after < lrWarmupRatio) return (lr * after) / lrWarmupRatio
  const start = lrDecayStyle === 'cosine' ? lrWarmupRatio : Math.max(lrWarmupRatio, 1 - lrDecayRatio)
  if (lrDecayStyle === 'constant' || before <= start) return lr
  const fallen = (before - start) / (1 - start)
  const share = lrDecayStyle === 'cosine' ? 0.5 * (1 + Math.cos(Math.PI * fallen)) : 1 - fallen
  return lrMin + (lr - lrMin) * share
}
