// The attention masks of training, as the model's caller describes them: who sees what, by block and document.
import { attention, type AttentionMask } from '../graph/ops/attention.ts'
import { constant } from '../graph/ops/input.ts'
import { rowBias, tileBias } from '../graph/ops/mask-bias.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Dimensions } from '../models/types.ts'

export interface RowLayout {
  /** [rows, length], int64: index of the document; equal values see each other. */
  documents: Tensor
  /** [rows, length], int64, from the start of the document. */
  positions: Tensor
}

const whole = (value: number): Tensor => constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(value)) })

/** Small blocks are computed several to a tile: below this many queries a matrix product is mostly overhead. */
const SMALLEST_TILE = 16

/**
 * `copies` noised copies and the clean one, `[x_t(1) ... x_t(K) ; x_0]`: a query sees its own block in its own copy and
 * the earlier clean blocks (LLaDA2.0, equation 3; design decision 4), within its document.
 *
 * @param aligned documents start at multiples of the block size, so that no block crosses a tile.
 */
export function blockDiffusion(
  { documents, positions }: RowLayout,
  { copies, blockSize, aligned }: { copies: number; blockSize: number; aligned: boolean },
): AttentionMask {
  const length = positions.shape[1] as number
  let tile = blockSize
  while (tile < SMALLEST_TILE && length % (tile * 2) === 0) tile *= 2
  if (!aligned || length % tile !== 0) tile = length
  const description = { documents, positions, blockSize: whole(blockSize), tile }
  return {
    copies: copies + 1,
    tile,
    tileBias: tileBias('same-block', description),
    context: { copy: copies, bias: rowBias('earlier-blocks', description) },
  }
}

/** Noised copies alone, each seeing all of its document (MDLM; LLaDA2.0, equation 4). */
export function fullAttention({ documents, positions }: RowLayout, copies: number): AttentionMask {
  const tile = positions.shape[1]
  return { copies, tile, tileBias: tileBias('document', { documents, positions, blockSize: whole(1), tile }) }
}

/** One clean copy, block-causal within the document; block size 1 is a causal mask. */
export function blockCausal({ documents, positions }: RowLayout, blockSize: number): AttentionMask {
  const tile = positions.shape[1]
  return {
    copies: 1,
    tile,
    tileBias: tileBias('block-causal', { documents, positions, blockSize: whole(blockSize), tile }),
  }
}

/** The attention callback of a model for a mask. */
export const masked =
  (mask: AttentionMask, { heads, kvHeads }: Dimensions) =>
  (q: Tensor, k: Tensor, v: Tensor): Tensor =>
    attention(q, k, v, mask, { heads, kvHeads })
