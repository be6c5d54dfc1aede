// The seam between the training loop and the compiled step that it drives.
import type { Batch } from '../data/types.ts'

/** Value of a metric: one number, one for each layer, or a table. */
export type Metric = number | readonly number[] | readonly (readonly number[])[]

export interface StepResult {
  /** The objective, over the tokens of all micro-batches. */
  loss: number
  /** Global gradient norm before clipping. */
  gradNorm: number
  /** What else the objective reports, by its name in metrics.jsonl. */
  metrics: Record<string, Metric>
  /** Floating-point operations of the step, as estimated by `updateFlops`. */
  flops: number
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

/** How probable a held-out text is; see `isScored` for which of its tokens. */
export interface Evaluation {
  /** Negative ELBO in nats per token (an upper bound on the NLL); for AR evaluation the exact NLL. */
  nll: number
  /**
   * Standard error of `nll` from the draws of the noise, given the text: the spread over seeds. It says nothing of how
   * another text would do. 0 where nothing is drawn.
   */
  stderr: number
  /** nll * tokens / (bytes * ln 2), and its standard error: comparable across tokenizers. NaN where `nll` is of no text. */
  bitsPerByte: number
  bitsPerByteStderr: number
  /** Scored tokens, and the bytes of text that they stand for. */
  tokens: number
  bytes: number
  /** What else was measured, by its name in metrics.jsonl behind `validation_`; of what is no likelihood, all of it. */
  metrics?: Readonly<Record<string, number>>
}

export interface EvaluationOptions {
  /** 'ar' is the causal NLL. */
  blockSize: number | 'ar'
  /** Every draw is a function of it. */
  seed: number
  /** Noise draws per block, taken in pairs: an odd number counts as the next. Default 2. More make the bound steadier. */
  samples?: number
}

/** A model with its optimiser, wherever its weights lie: who uses it sees scalars and folders. */
export interface Trainer {
  step(input: StepInput): Promise<StepResult>
  /** NELBO of the batches at a block size, or their causal NLL. */
  evaluate(batches: readonly Batch[], options: EvaluationOptions): Promise<Evaluation>
  /**
   * Writes the weights, as `model.safetensors` or shards with an index, and the optimiser's moments, `exp_avg.<parameter>`
   * and `exp_avg_sq.<parameter>` in `optimizer.safetensors`, into a folder that exists.
   *
   * @returns Updates that the optimiser has counted.
   */
  save(folder: string): Promise<number>
  /** Takes back what `save` wrote and returned, exactly. */
  restore(folder: string, updates: number): Promise<void>
  dispose(): Promise<void>
}
