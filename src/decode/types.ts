// What decoding takes and gives. Knows nothing about graphs or runtimes.

/** A token that a forward decided. */
export interface CommittedToken {
  /** Index in the document, the prompt included. */
  position: number
  token: number
  /** Probability of the token when it was committed, at most 1; of `logits * logitScale`, not of the sampled distribution. */
  confidence: number
  /** Number of its block, in order of position; in blocks of one size floor(position / block size). */
  block: number
  /** It replaces a token that an earlier step had committed, or that the caller gave. */
  edited?: true
  /** Natural logarithm of `confidence`, where log-probabilities were asked for. */
  logprob?: number
  /** The most probable tokens of the position, where log-probabilities were asked for, the best first. */
  top?: { token: number; logprob: number }[]
}

/** What one forward decided. */
export interface DecodeStep {
  /** Number of the forward, from 0. */
  step: number
  /** Ascending by position. */
  tokens: CommittedToken[]
  /** Every position of the document before this one is final: it only grows. */
  final: number
}

export interface GenerationResult {
  /** The new tokens, up to and including the first EOS. */
  ids: number[]
  /**
   * `eos`: a committed EOS ended it; `length`: `maxNewTokens` or the model's last position was reached; `stop`: a stop string
   * came up.
   */
  stop: 'eos' | 'length' | 'stop'
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
  /** Tokens of the prompt whose keys and values an earlier text had left. */
  cachedTokens: number
  /** Part of `seconds` up to the end of the first forward that predicts: the time to the first token. */
  prefillSeconds: number
}

/**
 * A step after each forward, then the result. Who has enough of it says so with the tokens of the text, `next(ids)`: the
 * result then has those, and `stop` as the reason. Leaving the loop early frees the state, too.
 */
export type Generation = AsyncGenerator<DecodeStep, GenerationResult, readonly number[] | undefined>

/** A block as a strategy sees it. Offsets count from the start of the block. */
export interface BlockState {
  /** Denoising steps that this block has had. */
  step: number
  /** Positions in the block. */
  size: number
  /** Offsets that are predicted, ascending: the masked ones, and for strategies that edit those with a token. */
  open: readonly number[]
  /** For each of `open`: the token that stands there; undefined where it is masked. */
  current: readonly (number | undefined)[]
  /** All earlier blocks are finished: this one must go on, others wait. */
  leading: boolean
}

/** For each open offset a token that is not the mask (the most probable one unless sampling), and its probability. */
export interface Predictions {
  tokens: readonly number[]
  confidence: ArrayLike<number>
  /** [open, vocabulary], scaled, for strategies that need them. */
  logits?: Float32Array
}

/** What a denoising step does. */
export interface Decision {
  /** Indices into `open` that get their predicted token, ascending; at least one masked one where the block leads. */
  commit: readonly number[]
  /** Another token than the predicted one, for strategies that choose themselves: index into `open` -> token. */
  tokens?: ReadonlyMap<number, number>
  /**
   * Soft states: index into `open` of a position that then has its predicted token -> the share of that token in the
   * position's embedding in the next step, 0 to 1; the rest is the mask's. Default none.
   */
  soft?: ReadonlyMap<number, number>
  /** A block without masks takes another step. Default false. */
  again?: boolean
}

/** From what a block is and what the model predicts for it to what happens. May keep what it knows of the block. */
export type Decide = (block: BlockState, predictions: Predictions) => Decision

/** A rule of decoding. */
export interface Strategy {
  /** Positions that have a token are predicted too, and may get another. Default false. */
  edits?: boolean
  /** Decisions have soft states: only for models trained with them. Default false. */
  softStates?: boolean
  /** `Predictions.logits` are there: a copy of vocabulary size per position. Default false. */
  needsLogits?: boolean
  /** Called for every block. */
  begin(): Decide
}
