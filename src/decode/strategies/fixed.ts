// A fixed number of tokens per step, the most confident ones (dInfer's FixedParallelDecoder; LLaDA's low-confidence remasking).
import type { StrategySettings } from '../settings.ts'
import type { Strategy } from '../types.ts'
import { mostConfident } from './choose.ts'

/** Commits the `tokensPerStep` most confident positions of the leading block. */
export const fixed = ({ tokensPerStep }: StrategySettings): Strategy => ({
  begin:
    () =>
    ({ leading }, { confidence }) => ({ commit: leading ? mostConfident(confidence, tokensPerStep) : [] }),
})
