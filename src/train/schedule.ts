// Learning rate over a run, as a function of the share of its tokens that is done. Knows nothing about steps or models.
import { UserError } from '../types.ts'

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
 * The learning rate of an update.
 *
 * @param progress Share of the run's tokens that are done when the update is, in (0, 1]: the first update has a rate
 * above 0, and the last has exactly `lrMin`.
 */
export function learningRateAt(progress: number, options: LearningRateOptions): number {
  const { lr, lrMin = 0, lrWarmupRatio = 0.03, lrDecayStyle = 'cosine', lrDecayRatio = 0.2 } = options
  const done = Math.min(1, Math.max(0, progress))
  if (done < lrWarmupRatio) return (lr * done) / lrWarmupRatio
  if (lrDecayStyle === 'constant') return lr
  const start = lrDecayStyle === 'cosine' ? lrWarmupRatio : Math.max(lrWarmupRatio, 1 - lrDecayRatio)
  if (done <= start) return lr
  const fallen = (done - start) / (1 - start)
  const share = lrDecayStyle === 'cosine' ? 0.5 * (1 + Math.cos(Math.PI * fallen)) : 1 - fallen
  return lrMin + (lr - lrMin) * share
}
