// The seam between the training loop and the compiled step that it drives.
import type { Batch } from '../data/types.ts'
import type { InitialParameter, Parameter } from '../types.ts'

/** One stage of the block-size schedule. */
export interface Stage {
  /** Block size; equal to or larger than the row length means MDLM (no clean copy). */
  blockSize: number
  /** Training tokens (clean tokens, each counted once) given to the stage. */
  tokens: number
}

export interface UpdateResult {
  /** The objective, averaged over the accumulated micro-batches. */
  loss: number
  /** Global gradient norm before clipping. */
  gradNorm: number
  /** Of a model with mixtures of experts: positions that each expert of each layer got, [layers][experts]. */
  expertLoad?: number[][]
  /** The loss that balances that load, where it is part of the gradients; `loss` does not hold it. */
  routerAuxLoss?: number
}

export interface StepResult extends UpdateResult {
  /** Positions that carried loss. */
  lossPositions: number
}

/** Everything a step needs beside the weights; the noise is drawn from (seed, step) alone. */
export interface StepInput {
  step: number
  batches: readonly Batch[]
  blockSize: number
  learningRate: number
  /** Standard deviation of the noise on masked embeddings at this step; 0 for none. */
  embeddingNoise: number
}

export interface Evaluation {
  /** Negative ELBO in nats per token (an upper bound on the NLL); for AR evaluation the exact NLL. */
  nll: number
  bitsPerByte: number
  tokens: number
}

/** A model with its optimiser on an executor. Weights stay there; the loop sees scalars. */
export interface Trainer {
  step(input: StepInput): Promise<StepResult>
  /** NELBO of the batches at a block size, with noise drawn from `seed` alone. `blockSize` 'ar' is the causal NLL. */
  evaluate(
    batches: readonly Batch[],
    options: { blockSize: number | 'ar'; seed: number; samples?: number },
  ): Promise<{ nll: number; tokens: number }>
  /** Weights, for checkpoints and export. Names as in the checkpoint format. */
  parameters(): Promise<Map<string, Parameter>>
  /** Optimiser moments, named `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`, and the update count. */
  optimizerState(): Promise<{ step: number; tensors: Map<string, Parameter> }>
  restore(state: {
    parameters: ReadonlyMap<string, InitialParameter>
    optimizer?: { step: number; tensors: ReadonlyMap<string, InitialParameter> }
  }): Promise<void>
  dispose(): Promise<void>
}
