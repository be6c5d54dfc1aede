// Training on preference pairs: a stepper in this process, and the objective that prepares its batches. Pairs are measured
// against a reference model, which is the model before its first step.
import { updateFlops } from '../account/flops.ts'
import { type InferenceParameter, type Parameter, UserError } from '../core/types.ts'
import type { Batch, PairLikelihoods } from '../data/types.ts'
import type { Model } from '../models/types.ts'
import { type DpoSettings, dpo, pairLikelihoods, preferenceLoss, rewards } from '../objectives/dpo.ts'
import type { Executor } from '../runtime/executor.ts'
import { createStepper, isMatrix, type StepperOptions } from './stepper.ts'
import { type LocalTrainer, parameterCount, stepperTrainer, trainable } from './trainer.ts'

export interface PreferenceTrainerOptions
  extends Omit<StepperOptions, 'base' | 'loraScale' | 'decays'>,
    Omit<DpoSettings, 'hiddenSize'> {
  seed: number
  /** Low-rank weights that are trained in place of the model's own, and what their products are multiplied with. */
  lora?: { parameters: ReadonlyMap<string, Parameter>; scale: number } | undefined
}

export interface PreferenceTrainer extends LocalTrainer {
  /** The likelihoods of a batch's pairs under the weights as they are, with the draws of training or of `evaluate`. */
  likelihoods(batch: Batch, drawing: PairDrawing): Promise<PairLikelihoods[]>
}

export interface PairDrawing {
  /** Draws of `evaluate` for an answer, taken in pairs; undefined for those of training. */
  heldOut: number | undefined
}

/**
 * Puts the weights on the executor; with `lora` the model's may be quantised. The pairs of batches that are trained on or evaluated need their `reference`. What
 * `evaluate` returns as `nll` is the loss, and `stderr` its standard error over the pairs.
 */
export async function createPreferenceTrainer(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, InferenceParameter>,
  { lora, ...options }: PreferenceTrainerOptions,
): Promise<PreferenceTrainer> {
  const { seed, beta, labelSmoothing } = options
  const settings = { ...options, hiddenSize: model.dimensions.hiddenSize }
  const stepper = await createStepper(executor, model, lora?.parameters ?? trainable(initial), {
    ...options,
    decays: (name) => isMatrix(model, name),
    ...(lora && { base: initial, loraScale: lora.scale }),
  })
  const measured = (batch: Batch, samples: number, row = 0) =>
    dpo.measure(batch, { seed, pairs: Math.ceil(samples / 2), row }, settings)

  async function likelihoods(batch: Batch, { heldOut }: PairDrawing): Promise<PairLikelihoods[]> {
    const microBatch =
      heldOut === undefined
        ? dpo.prepare(batch, { seed, step: 0, row: 0 }, settings)
        : measured(batch, heldOut)[0]!.microBatch
    return pairLikelihoods(microBatch, await stepper.nll(microBatch))
  }

  const local = stepperTrainer(stepper, seed, {
    prepare(batch, at) {
      for (const pair of batch.pairs ?? []) if (!pair.reference) throw missing(pair.id)
      return dpo.prepare(batch, at, settings)
    },
    measure: (batch, { row, pairs }) => measured(batch, 2 * pairs, row),
    flops: updateFlops(model, lora && parameterCount(lora.parameters)),
  })
  return {
    ...local,
    likelihoods,
    async evaluate(batches, { samples = 2 }) {
      const pairs: { loss: number; chosen: number; rejected: number; moreLikely: number }[] = []
      for (const batch of batches) {
        const found = await likelihoods(batch, { heldOut: samples })
        for (const [i, { id, reference }] of (batch.pairs ?? []).entries()) {
          if (!reference) throw missing(id)
          const { chosen, rejected } = rewards(found[i]!, reference, beta)
          const loss = preferenceLoss(chosen - rejected, labelSmoothing)
          pairs.push({ loss, chosen, rejected, moreLikely: share(found[i]!.chosen - found[i]!.rejected) })
        }
      }
      const mean = (value: (pair: (typeof pairs)[number]) => number) =>
        pairs.reduce((sum, pair) => sum + value(pair), 0) / Math.max(1, pairs.length)
      const loss = mean((pair) => pair.loss)
      const variance = mean((pair) => (pair.loss - loss) ** 2)
      return {
        nll: loss,
        stderr: Math.sqrt(variance / Math.max(1, pairs.length - 1)),
        ...{ bitsPerByte: Number.NaN, bitsPerByteStderr: Number.NaN },
        tokens: batches.reduce((sum, batch) => sum + batch.tokens, 0),
        bytes: batches.reduce((sum, batch) => sum + batch.bytes, 0),
        metrics: {
          loss,
          pairs: pairs.length,
          chosen_reward: mean((pair) => pair.chosen),
          rejected_reward: mean((pair) => pair.rejected),
          reward_margin: mean((pair) => pair.chosen - pair.rejected),
          reward_accuracy: mean((pair) => share(pair.chosen - pair.rejected)),
          likelihood_accuracy: mean((pair) => pair.moreLikely),
        },
      }
    },
  }
}

/** What a difference counts as: 1 if the first is higher, half if both are the same. */
const share = (difference: number): number => (difference > 0 ? 1 : difference === 0 ? 0.5 : 0)

const missing = (id: number) => new UserError(`pair ${id} has not been measured with the reference model`)
