// What a training objective is: from a batch to the inputs of a program, and the loss that the program traces.
import type { Batch } from '../data/types.ts'
import type { Counters } from '../diffusion/noise.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Model, Routing } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import type { Source } from '../runtime/executor.ts'

export interface Sizes {
  rows: number
  length: number
}

/** A batch as a program takes it: plain data, so that it can be prepared in one place and run in another. */
export interface MicroBatch<Variant> extends Sizes {
  /** What the program is traced for, as plain JSON: one program for each value. */
  objective: Variant
  feeds: Record<string, Source>
  /**
   * What sums are divided by, over all micro-batches of a step: the feed `<name>_weights` is divided by the step's sum of
   * the count `name`, so that the output `name` is this micro-batch's part of a mean over the step. Default: nothing is
   * divided.
   */
  counts?: Readonly<Record<string, number>>
}

/** Masks that are predicted together: the block or stride of a row that begins at `start`, in one draw of the noise. */
export interface Tile {
  row: number
  start: number
  draw: number
}

/** A draw of a held-out batch. */
export interface Measurement<Variant> {
  microBatch: MicroBatch<Variant>
  /**
   * For each value of the output `nll` its tile. Draws 2n and 2n + 1 of a tile are independent of each other and alike, so
   * that their difference estimates the error. Undefined where nothing is drawn, so that `nll` is exact.
   */
  tiles: readonly Tile[] | undefined
}

export interface MeasureOptions {
  seed: number
  /** Pairs of draws. */
  pairs: number
  /** Number of the batch's first row among all that are measured. */
  row: number
}

/** What an objective gives a program. */
export interface TracedLoss {
  /** Scalar, what is trained on: sum of nll times `loss_weights`. */
  loss: Tensor
  /** Negative log-likelihood of each prediction, [M]. */
  nll: Tensor
  /** Further scalars by the names that they have in metrics. */
  metrics: Readonly<Record<string, Tensor>>
  /** Of mixtures of experts, and which positions count: [copies * rows, length], and [M] behind the last attention. */
  routing: readonly Routing[]
  counted: { positions: Tensor; selected: Tensor }
}

/**
 * A training objective. `prepare` is a function of its arguments alone; `trace` builds the loss of what it prepared.
 * Settings are the objective's own. Held-out text may be measured by the program of another (`Measured`).
 */
export interface Objective<Settings, Variant, Measured = Variant> {
  prepare(batch: Batch, at: Counters, settings: Settings): MicroBatch<Variant>
  /** Draws that measure held-out text. */
  measure(batch: Batch, options: MeasureOptions, settings: Settings): Measurement<Measured>[]
  trace(model: Model, weights: Weights, variant: Variant, sizes: Sizes): TracedLoss
}
