// Block diffusion where only the tiles that a loss depends on are computed: the noised blocks that are predicted from, and the
// clean blocks before them. The loss and its gradients are those of `bdlm`, which computes whole rows.
import { tileList } from '../diffusion/attention.ts'
import { neededTiles, tileSizes } from '../diffusion/tiles.ts'
import { differs } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import type { Model } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import { type DenoisingSettings, denoising, type Noised } from './denoising.ts'
import { predictionLoss } from './token-loss.ts'
import type { Objective, Sizes, TracedLoss } from './types.ts'

export interface TilesVariant extends Omit<Noised, 'copies'> {
  kind: 'tiles'
  blockSize: number
}

/**
 * Inputs, with P tiles of B positions, G groups, C clean tiles of a row at most, all int64: `input_ids`, `position_ids` [P, B];
 * `tile_order`, `tile_columns` [G, rows, S], `tile_places` [P], `context_tiles` [rows, C], `context_places` [P],
 * `context_ranges` [G, 2], `context_limits` [G, rows, X, 2] (see `TileAttention`); those of `predictionLoss`. P, S, C, X and M
 * may differ from run to run.
 */
function trace(model: Model, weights: Weights, variant: TilesVariant, { rows, length }: Sizes): TracedLoss {
  const { blockSize, embeddingNoise, parts, confidence } = variant
  const { groups } = tileSizes(length, blockSize)
  const ids = input('input_ids', 'int64', ['P', blockSize])
  const mask = {
    order: input('tile_order', 'int64', [groups, rows, 'S']),
    placeOf: input('tile_places', 'int64', ['P']),
    context: input('context_tiles', 'int64', [rows, 'C']),
    contextOf: input('context_places', 'int64', ['P']),
    ranges: input('context_ranges', 'int64', [groups, 2]),
    columnOf: input('tile_columns', 'int64', [groups, rows, 'S']),
    before: input('context_limits', 'int64', [groups, rows, 'X', 2]),
  }
  return predictionLoss(model, weights, {
    ids,
    positions: input('position_ids', 'int64', ['P', blockSize]),
    positionCount: length,
    attention: tileList(mask, { blockSize, length }, model.dimensions),
    // Tiles are of documents, all of them.
    counted: differs(ids, -1),
    embeddingNoise,
    parts,
    confidence,
  })
}

export const tiles = {
  ...denoising<TilesVariant>({
    cleanCopy: true,
    tiles: (batch, { blockSize }, copies, index) => neededTiles(batch, blockSize, copies, index),
    variant: ({ blockSize }, { copies: _, ...noised }) => ({ kind: 'tiles', blockSize, ...noised }),
  }),
  trace,
} satisfies Objective<DenoisingSettings, TilesVariant>
