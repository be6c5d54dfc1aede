// A fixed number of tokens per step, the most confident ones (dInfer's FixedParallelDecoder; LLaDA's low-confidence remasking).
import type { Strategy } from '../types.ts'
import { mostConfident } from './choose.ts'

export interface FixedOptions {
  /** Tokens that each step commits. Default 1. */
  tokensPerStep?: number
}

/** Commits the `tokensPerStep` most confident positions of the leading block. */
export const fixed = ({ tokensPerStep = 1 }: FixedOptions = {}): Strategy => ({
  begin:
    () =>
    ({ leading }, { confidence }) => ({ commit: leading ? mostConfident(confidence, tokensPerStep) : [] }),
})
