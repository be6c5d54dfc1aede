// What block decoding is given.
import type { Tracker } from '../constraints/index.ts'
import type { Predictor } from '../predict.ts'
import type { Strategy } from '../types.ts'

/** What is decoded. */
export interface Document {
  /** Tokens that are given; behind them all is masked. At `holes` the value does not matter. */
  ids: readonly number[]
  /** Given positions that are masked too. Default: none. */
  holes?: ReadonlySet<number>
  /** Given positions from here on may be edited by strategies that edit. Default: none. */
  editableFrom?: number
  /** One past the last position that is asked for. */
  end: number
  /** Blocks are decoded up to their end, but not beyond this position: the model's last. */
  most: number
  /** Blocks start at multiples of it; or where each block starts, ascending from 0, if they differ. */
  blocks: number | readonly number[]
  /** Tokens that end the text where the model writes them. */
  eosTokenIds: readonly number[]
  /** Which tokens the positions behind `ids` may have; its first position is that of the first such one. Default: any. */
  tracker?: Tracker
}

export interface BlockSettings {
  strategy: Strategy
  predictor: Predictor
  maskTokenId: number
  /** The state at i - 1 predicts token i. */
  shift: boolean
  /** The first token of a block waits while the token before it, which predicts it, is masked. */
  waits: boolean
  /** Most blocks in the running set; 1 is plain block decoding. */
  bufferSize: number
  /** A block joins the running set when this share of the one before it is filled. */
  activation: number
  /**
   * Tokens keep the keys and values of the forward that first had them until their block is finished, and are no rows of
   * later forwards: fewer rows, at some cost in quality. Keys and values of finished blocks are exact either way.
   */
  reuse: boolean
  /**
   * A second forward checks the leading block's draft when at least this many tokens are expected to be accepted, and the
   * strategy decides elsewhere; see self-verify.ts. Undefined: never.
   */
  selfVerify?: number
  logitScale?: number
  signal?: AbortSignal
}
