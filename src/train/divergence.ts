// Distinguishes a run that has diverged from one that is merely noisy. Knows nothing about where the numbers come from.
import { UserError } from '../core/types.ts'
import type { StepResult } from './types.ts'

/** The loss or the gradients are not finite or have exploded. The last good checkpoint is still there. */
export class TrainingDiverged extends UserError {
  override name = 'TrainingDiverged'
  /** The update that failed, counting from 1, as in metrics.jsonl. */
  readonly step: number
  /** Documents of the batches of that update. */
  readonly documentIds: readonly string[]
  /** The last good checkpoint. */
  readonly checkpoint: string | undefined

  constructor(reason: string, step: number, documentIds: readonly string[], checkpoint: string | undefined) {
    const more = documentIds.length > 8 ? ` and ${documentIds.length - 8} more` : ''
    super(
      [
        `Training diverged at step ${step}: ${reason}.`,
        ...(documentIds.length > 0 ? [`Documents of the step: ${documentIds.slice(0, 8).join(', ')}${more}.`] : []),
        checkpoint ? `The last good checkpoint is ${checkpoint}.` : 'No checkpoint had been saved yet.',
        `Look at the documents, or start a new run${checkpoint ? ' from that checkpoint' : ''} with a lower lr, a longer`,
        'lr_warmup_ratio or a lower max_grad_norm.',
      ].join(' '),
    )
    this.step = step
    this.documentIds = documentIds
    this.checkpoint = checkpoint
  }
}

/** Losses and gradient norms of the latest steps, oldest first: plain JSON, kept in a checkpoint. */
export interface RecentSteps {
  losses: number[]
  gradNorms: number[]
}

/** Steps that the medians are taken over, and steps in a row that must lie far above them. */
const windowSteps = 64
const patience = 8

/**
 * Records a step. Returns why the run has diverged, or undefined where it has not: at once where the loss or the gradient
 * norm is not finite, else where one of them was more than `factor` times its median over the 64 steps before, 8 steps in
 * a row. Single spikes are normal (the ELBO's weights 1/t reach 1000) and gradient clipping takes care of them.
 */
export function observeStep(
  recent: RecentSteps,
  result: Pick<StepResult, 'loss' | 'gradNorm'>,
  factor: number,
): string | undefined {
  const series = [
    ['loss', recent.losses, result.loss],
    ['gradient norm', recent.gradNorms, result.gradNorm],
  ] as const
  for (const [name, , value] of series) if (!Number.isFinite(value)) return `the ${name} is ${value}`
  for (const [name, values, value] of series) {
    values.push(value)
    if (values.length > windowSteps + patience) values.shift()
    if (values.length <= 2 * patience) continue
    const usual = median(values.slice(0, -patience))
    if (values.slice(-patience).every((late) => late > factor * usual)) {
      return `the ${name} has exploded: ${value.toPrecision(4)}, and for ${patience} steps more than ${factor} times the usual ${usual.toPrecision(4)}`
    }
  }
  return undefined
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}
