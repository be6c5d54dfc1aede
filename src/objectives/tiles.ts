// Block diffusion where only the tiles that a loss depends on are computed: the noised blocks that are predicted from, and the
// blocks that these see. The loss and its gradients are those of `bdlm`, which computes whole rows. Blocks may be noised in
// groups (`groupSize`), as decoding refines several at a time: then a block sees those of its group before it as they are noised.
import { type Attend, tileList } from '../diffusion/attention.ts'
import { neededTiles, tileSizes } from '../diffusion/tiles.ts'
import { differs } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import type { Model, ModelInput } from '../models/types.ts'
import type { Weights } from '../nn/weights.ts'
import { type DenoisingSettings, denoising, type Layout, type Noised } from './denoising.ts'
import { predictionLoss } from './token-loss.ts'
import type { Objective, Sizes, TracedLoss } from './types.ts'

export interface TilesVariant extends Omit<Noised, 'copies'> {
  kind: 'tiles'
  blockSize: number
}

/**
 * Inputs, with P tiles of B positions, G groups, C tiles of a row's context at most, all int64: `input_ids`, `position_ids`
 * [P, B]; `tile_order`, `tile_columns` [G, rows, S], `tile_places` [P], `context_tiles` [rows, C], `context_places` [P],
 * `context_ranges` [G, 2], `context_limits` [G, rows, X, 1 or 2, 2] (see `TileAttention`). P, S, C and X may differ from run to
 * run.
 */
export function tileInputs(
  model: Model,
  { blockSize, grouped = false }: Pick<TilesVariant, 'blockSize' | 'grouped'>,
  { rows, length }: Sizes,
): Pick<ModelInput, 'ids' | 'positions'> & { positionCount: number; attention: Attend } {
  const { groups } = tileSizes(length, blockSize)
  const mask = {
    order: input('tile_order', 'int64', [groups, rows, 'S']),
    placeOf: input('tile_places', 'int64', ['P']),
    context: input('context_tiles', 'int64', [rows, 'C']),
    contextOf: input('context_places', 'int64', ['P']),
    ranges: input('context_ranges', 'int64', [groups, 2]),
    columnOf: input('tile_columns', 'int64', [groups, rows, 'S']),
    before: input('context_limits', 'int64', [groups, rows, 'X', grouped ? 2 : 1, 2]),
  }
  return {
    ids: input('input_ids', 'int64', ['P', blockSize]),
    positions: input('position_ids', 'int64', ['P', blockSize]),
    positionCount: length,
    attention: tileList(mask, { blockSize, length }, model.dimensions),
  }
}

/** Inputs: those of `tileInputs` and of `predictionLoss`. */
function trace(model: Model, weights: Weights, variant: TilesVariant, sizes: Sizes): TracedLoss {
  const { embeddingNoise, parts, confidence } = variant
  const inputs = tileInputs(model, variant, sizes)
  // Tiles are of documents, all of them.
  const counted = differs(inputs.ids, -1)
  return predictionLoss(model, weights, { ...inputs, counted, embeddingNoise, parts, confidence })
}

/** How copies are laid out in tiles. */
export const tileLayout: Pick<Layout<unknown>, 'cleanCopy' | 'tiles'> = {
  cleanCopy: true,
  tiles: (batch, { blockSize }, { copies, joined }, index) => neededTiles(batch, blockSize, copies, index, joined),
}

export const tiles = {
  ...denoising<TilesVariant>({
    ...tileLayout,
    variant: ({ blockSize }, { copies: _, ...noised }) => ({ kind: 'tiles', blockSize, ...noised }),
  }),
  trace,
} satisfies Objective<DenoisingSettings, TilesVariant>
