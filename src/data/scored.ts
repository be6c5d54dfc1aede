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

/** The scored tokens, as indices into [rows, length]. */
export const scoredIn = (batch: Layout): Int32Array =>
  Int32Array.from(batch.maskable.keys()).filter((i) => isScored(batch, i))

/** Number of scored tokens. */
export const scoredTokens = (batch: Layout): number => scoredIn(batch).length
