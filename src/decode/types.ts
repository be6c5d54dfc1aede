// What decoding takes and gives. Knows nothing about graphs or runtimes.

/** A token that a forward decided, for good. */
export interface CommittedToken {
  /** Index in the document, the prompt included. */
  position: number
  token: number
  /** Number of the forward that decided it, from 0; the tokens of one step share it. */
  step: number
  /** Probability of the token when it was committed, at most 1. */
  confidence: number
  /** floor(position / block size). */
  block: number
}

export interface GenerationResult {
  /** The new tokens, up to and including the first EOS. */
  ids: number[]
  /** `eos`: a committed EOS ended it; `length`: `maxNewTokens` or the model's last position was reached. */
  stop: 'eos' | 'length'
  /** Length of `ids`. Tokens that were committed behind the first EOS, or behind the last position asked for, do not count. */
  tokens: number
  /**
   * Forwards that predicted tokens. The forward that predicts first also holds the (rest of the) prompt, and the first of
   * each later block also holds the finished block before it, so none is left out; only where a prompt is too long for
   * one forward, the forwards over its earlier parts are not counted.
   */
  forwards: number
  /** Tokens per forward: `tokens / forwards`. */
  tpf: number
  /** Tokens per second: `tokens / seconds`. */
  tps: number
  /** Time in which the engine worked, prefill included; the time that the consumer took between tokens is not. */
  seconds: number
  promptTokens: number
  /** Part of `seconds` up to the end of the first forward that predicts: the time to the first token. */
  prefillSeconds: number
}

/** Committed tokens as they come, ascending within a step, then the result. Leaving the loop early frees the state. */
export type Generation = AsyncGenerator<CommittedToken, GenerationResult, void>

/** A block as a strategy sees it. Offsets count from the start of the block. */
export interface BlockState {
  /** Denoising steps that this block has had. */
  step: number
  /** Offsets that are still masked, ascending. */
  masked: readonly number[]
}

/** For each masked offset the most probable token that is not the mask, and its probability. */
export interface Predictions {
  tokens: readonly number[]
  confidence: ArrayLike<number>
}

/** What a denoising step does. */
export interface Decision {
  /** Indices into `masked` (and the predictions) that are committed: at least one, ascending. */
  commit: readonly number[]
}

/** A rule of decoding: from what a block is and what the model predicts for it to what happens. */
export type Strategy = (block: BlockState, predictions: Predictions) => Decision
