// Which tokens a likelihood is of: the one definition, for autoregressive models and for bounds alike.
import type { Batch } from './types.ts'

type Layout = Pick<Batch, 'maskable' | 'padding' | 'positions'>

/**
 * Whether token `i` of a batch is scored: the text (of a document with a prompt, its completion) and the EOS that ends it.
 * Not scored are prompts, the padding behind the EOS, and the first token of a document, which an autoregressive model has
 * nothing to predict from. Tokens and bytes of bits per byte are counted over the same tokens.
 */
export const isScored = ({ maskable, padding, positions }: Layout, i: number): boolean =>
  maskable[i] === 1 && padding[i] === 0 && positions[i]! > 0

/** Number of scored tokens. */
export function scoredTokens(batch: Layout): number {
  let count = 0
  for (let i = 0; i < batch.maskable.length; i++) if (isScored(batch, i)) count++
  return count
}
