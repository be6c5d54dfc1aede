// The attention masks of training, as the model's caller describes them: who sees what, by block and document.

import { blockDiffusionAttention, blocksPerGroup, contextWidth } from '../graph/ops/attention/block-diffusion.ts'
import { blockColumns, rowBias, tileBias } from '../graph/ops/attention/masks.ts'
import { type TileListMask, tileListAttention } from '../graph/ops/attention/tile-list.ts'
import { attention } from '../graph/ops/attention/tiled.ts'
import { constant } from '../graph/ops/input.ts'
import { expand } from '../graph/ops/layout.ts'
import type { Tensor } from '../graph/tensor.ts'
import { tileSizes } from './tiles.ts'

export interface RowLayout {
  /** [rows, length], int64: index of the document; equal values see each other. */
  documents: Tensor
  /** [rows, length], int64, from the start of the document. */
  positions: Tensor
}

const whole = (value: number): Tensor => constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(value)) })

/** Small blocks are computed several to a tile: below this many queries a matrix product is mostly overhead. */
const SMALLEST_TILE = 16

/** Groups of tiles that the context is cut into, and the most extra columns that a product may carry. */
const GROUPS = 4
const MOST_COLUMNS = 32

/** Query heads, and the key-value heads that they share. */
export interface Heads {
  heads: number
  kvHeads: number
}

/** What the model's attention callback is made of: q, k, v of a layer to mixed values. */
export type Attend = (q: Tensor, k: Tensor, v: Tensor) => Tensor

/**
 * `copies` noised copies and the clean one, `[x_t(1) ... x_t(K) ; x_0]`: a query sees its own block in its own copy and
 * the earlier clean blocks (LLaDA2.0, equation 3; design decision 4), within its document.
 *
 * @param aligned documents start at multiples of the block size, so that no block crosses a tile.
 */
export function blockDiffusion(
  { documents, positions }: RowLayout,
  { copies, blockSize, aligned }: { copies: number; blockSize: number; aligned: boolean },
  heads: Heads,
): Attend {
  const [rows, length] = positions.shape as number[]
  let tile = blockSize
  while (tile < SMALLEST_TILE && length % (tile * 2) === 0) tile *= 2
  if (!aligned || length % tile !== 0) {
    const description = { documents, positions, blockSize: whole(blockSize), tile: length }
    const mask = {
      copies: copies + 1,
      tile: length,
      tileBias: tileBias('same-block', description),
      context: { copy: copies, bias: rowBias('earlier-blocks', description) },
    }
    return (q, k, v) => attention(q, k, v, mask, heads)
  }
  const tiles = length / tile
  let tilesPerGroup = Math.ceil(tiles / GROUPS)
  while (tiles % tilesPerGroup !== 0 || (tilesPerGroup > 1 && (tilesPerGroup * tile) / blockSize > MOST_COLUMNS))
    tilesPerGroup--
  const sizes = { tile, tilesPerGroup, blockSize }
  const share = heads.heads / heads.kvHeads
  const keyColumns: Tensor[] = []
  for (let g = 0; g < tiles / tilesPerGroup; g++) {
    const width = contextWidth(g, sizes)
    const start = g * tilesPerGroup * tile
    const end = start + tilesPerGroup * tile
    if (width > 0)
      keyColumns.push(blockColumns(positions, documents, { blockSize, start, end, width, kvHeads: heads.kvHeads }))
  }
  const mask = {
    copies: copies + 1,
    ...sizes,
    ...(tile > blockSize
      ? { tileBias: tileBias('same-block', { documents, positions, blockSize: whole(blockSize), tile }) }
      : {}),
    blocks: oneHotBlocks(rows, heads.kvHeads, copies + 1, share, sizes),
    keyColumns,
  }
  return (q, k, v) => blockDiffusionAttention(q, k, v, mask, heads)
}

/** The same for a list of tiles, `neededTiles` of rows of `length`. */
export function tileList(
  mask: TileListMask,
  { blockSize, length }: { blockSize: number; length: number },
  { heads, kvHeads }: Heads,
): Attend {
  const { bundle } = tileSizes(length, blockSize)
  return tileListAttention(mask, { heads, kvHeads, bundle, tile: blockSize })
}

/** One-hot of the block, in its group, of every query of a group: [rows, kvHeads, copies * tilesPerGroup * share * tile, blocks]. */
function oneHotBlocks(
  rows: number,
  kvHeads: number,
  copies: number,
  share: number,
  sizes: { tile: number; tilesPerGroup: number; blockSize: number },
): Tensor {
  const { tile, tilesPerGroup, blockSize } = sizes
  const columns = blocksPerGroup(sizes)
  const groupRows = copies * tilesPerGroup * share * tile
  const data = new Float32Array(groupRows * columns)
  for (let row = 0; row < groupRows; row++) {
    const tileInGroup = Math.floor(row / (share * tile)) % tilesPerGroup
    data[row * columns + Math.floor((tileInGroup * tile + (row % tile)) / blockSize)] = 1
  }
  const one = constant({ dtype: 'float32', shape: [1, 1, groupRows, columns], data })
  return expand(one, [rows, kvHeads, groupRows, columns])
}

/** Noised copies alone, each seeing all of its document (MDLM; LLaDA2.0, equation 4). */
export function fullAttention({ documents, positions }: RowLayout, copies: number, heads: Heads): Attend {
  const tile = positions.shape[1] as number
  const mask = { copies, tile, tileBias: tileBias('document', { documents, positions, blockSize: whole(1), tile }) }
  return (q, k, v) => attention(q, k, v, mask, heads)
}

/** One clean copy, block-causal within the document; block size 1 is a causal mask. */
export function blockCausal({ documents, positions }: RowLayout, blockSize: number, heads: Heads): Attend {
  const tile = positions.shape[1] as number
  const description = { documents, positions, blockSize: whole(blockSize), tile }
  const mask = { copies: 1, tile, tileBias: tileBias('block-causal', description) }
  return (q, k, v) => attention(q, k, v, mask, heads)
}
