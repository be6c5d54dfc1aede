// What the objectives of masked diffusion share: noise drawn, copies laid out, positions that carry loss.

import { random } from '../core/random.ts'
import { type TensorData, UserError } from '../core/types.ts'
import { isScored } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import {
  type LossPositions,
  lossPositions,
  noisedIds,
  supervisedTokens,
  type Weighting,
} from '../diffusion/loss-positions.ts'
import { type Counters, drawBound, drawNoise, type Noise, type NoiseOptions } from '../diffusion/noise.ts'
import { placesIn, type Tiles } from '../diffusion/tiles.ts'
import { scoredTurns, separateTurns, type TurnRule } from '../diffusion/turns.ts'
import { CONFIDENCE, type Confidence } from './confidence.ts'
import { float32, inTiles, lossFeeds, ownFeeds, rowFeeds, tileFeeds } from './feeds.ts'
import type { Measurement, MeasureOptions, MicroBatch, Objective, Tile } from './types.ts'

/** Settings of masked diffusion. */
export interface DenoisingSettings {
  /** Id of the mask token. */
  maskTokenId?: number
  weighting: Weighting
  noise: NoiseOptions
  /** The state at i - 1 predicts token i; see `PredictionOptions`. Default false. */
  shift?: boolean
  /** Documents are padded to multiples of this; block sizes that divide it never cross a tile. */
  finalBlockSize: number
  /** Width of the embedding. */
  hiddenSize: number
  /** Block size of the step; from the row length on, a block is a whole document. */
  blockSize: number
  /** Standard deviation of the noise on masked embeddings; 0 for none. */
  embeddingNoise: number
  /** Weight of the diffusion loss beside the next-token loss, where there is one. Default 1. */
  diffusionWeight?: number
  /** How turns of a chat that share a block are trained. Default `apart`. */
  turns?: TurnRule
  /** Trains the model to be sure of what it predicts right, too. Default: not. */
  confidence?: Confidence | undefined
}

/** Of a program's variant, what the noise decides. */
export interface Noised {
  /** Noised copies of each row. */
  copies: number
  /** Blocks are noised in groups; see `drawGroups`. */
  grouped?: boolean
  embeddingNoise?: boolean
  confidence?: Confidence
  /** Parts of the loss that are metrics. */
  parts?: readonly string[]
}

/** How an objective lays out the copies of a row. */
export interface Layout<Variant> {
  /** Whether the clean copy follows the noised ones. */
  cleanCopy: boolean
  /** The tiles that states at `index` depend on, where they alone are computed. Absent: the copies are computed whole. */
  tiles?(batch: Batch, settings: DenoisingSettings, noise: Noise, index: Int32Array): Tiles
  variant(settings: DenoisingSettings, noised: Noised): Variant
}

/** A micro-batch whose `nll` times `loss_weights` are parts of a likelihood, or of a bound of it. */
export interface Scored<Variant> {
  microBatch: MicroBatch<Variant>
  /** Token that each prediction is of, an index into [copies, rows, length]: [M] without the padding. */
  tokens: Int32Array
}

/** What an objective of masked diffusion can do beside `trace`. */
interface Denoising<Variant> extends Pick<Objective<DenoisingSettings, Variant>, 'prepare' | 'measure'> {
  /**
   * The bound's part that given masks make: the scored tokens among them, each with the weight 1/t. Turns of a chat that share
   * a block are scored in copies of their own; see `separateTurns`.
   */
  score(batch: Batch, noise: Noise, settings: BoundSettings & Pick<DenoisingSettings, 'blockSize'>): Scored<Variant>
}

/** What the bound of a model is measured with. */
export type BoundSettings = Pick<DenoisingSettings, 'maskTokenId' | 'shift' | 'finalBlockSize' | 'hiddenSize'>

/** `prepare`, `measure` and `score` of an objective of masked diffusion. */
export function denoising<Variant>(layout: Layout<Variant>): Denoising<Variant> {
  return {
    prepare: (batch, at, settings) => prepare(batch, at, settings, layout),
    measure: (batch, options, settings) => measure(batch, options, settings, layout),
    score: (batch, noise, settings) => score(batch, noise, settings, layout),
  }
}

/** A training draw of a batch. Padding has a metric of its own, so that it does not hide how the text is learned. */
function prepare<Variant>(
  batch: Batch,
  at: Counters,
  settings: DenoisingSettings,
  layout: Layout<Variant>,
): MicroBatch<Variant> {
  const { weighting, blockSize, shift, hiddenSize } = settings
  const { rows, length, padding } = batch
  const drawn = drawNoise(batch, { ...settings.noise, ...at, blockSize })
  const noise = separateTurns(drawn, batch, blockSize, settings.turns ?? 'apart')
  const maskable = supervisedTokens(batch, { shift, supervisePadding: settings.noise.supervisePadding })
  const supervised = scoredTurns(maskable, noise)
  const { loss, feeds, tiles, places } = laidOut(batch, noise, supervised, settings, layout)
  const ofPadding = loss.tokens.map((token) => padding[token % padding.length]!)
  const weights = {
    loss: loss.weights,
    text_loss: loss.weights.map((weight, i) => (ofPadding[i] ? 0 : weight)),
    padding_loss: loss.weights.map((weight, i) => (ofPadding[i] ? weight : 0)),
  }
  const [all, padded] =
    weighting === 'mean'
      ? [loss.tokens.length, sum(ofPadding)]
      : [drawn.copies * sum(supervised), drawn.copies * sum(supervised.map((flag, i) => flag * padding[i]!))]
  const embeddingNoise = settings.embeddingNoise > 0
  const { confidence } = settings
  const masks = confidence && { [CONFIDENCE]: Float32Array.from(loss.tokens, (token) => noise.masked[token]!) }
  const inputs: Record<string, TensorData> = {
    ...feeds,
    ...lossFeeds(loss, { ...weights, ...masks }, copiesOf(drawn, layout) * rows * length),
  }
  const own = noise.edits?.own
  if (own) Object.assign(inputs, ownFeeds(feeds.input_ids!.shape, loss, places, own))
  if (embeddingNoise) {
    const values = noiseAt(noise, copiesOf(noise, layout) * rows, batch, settings, at)
    const shape = [...feeds.input_ids!.shape, hiddenSize]
    inputs.embedding_noise = float32(shape, tiles ? inTiles(tiles, values, hiddenSize) : values)
  }
  return {
    objective: layout.variant(settings, {
      ...{ copies: noise.copies, embeddingNoise, parts: ['text_loss', 'padding_loss'] },
      ...(noise.joined && { grouped: true }),
      confidence,
    }),
    rows,
    length,
    feeds: inputs,
    counts: {
      loss: all,
      text_loss: all - padded,
      padding_loss: padded,
      ...(masks && { [CONFIDENCE]: sum(masks[CONFIDENCE]) }),
      loss_positions: loss.tokens.length,
      tokens: batch.tokens,
    },
  }
}

/** Pairs of draws of the bound; see `drawBound`. */
function measure<Variant>(
  batch: Batch,
  { seed, pairs, row }: MeasureOptions,
  settings: DenoisingSettings,
  layout: Layout<Variant>,
): Measurement<Variant>[] {
  const { blockSize } = settings
  const { rows, length, positions } = batch
  const size = rows * length
  // At block size 1 all draws are the same.
  const strata = blockSize === 1 ? 1 : pairs
  return Array.from({ length: strata }, (_, stratum) => {
    const drawn = drawBound(batch, { blockSize, seed, row, stratum, strata })
    const { microBatch, tokens } = score(batch, drawn, settings, layout)
    const tiles = Array.from(tokens, (token): Tile => {
      const at = token % size
      const start = (at % length) - (positions[at]! % blockSize)
      return {
        row: row + Math.floor(at / length),
        start,
        draw: 2 * stratum + (Math.floor(token / size) % drawn.copies),
      }
    })
    return { microBatch, tiles }
  })
}

function score<Variant>(
  batch: Batch,
  drawn: Noise,
  bound: BoundSettings & Pick<DenoisingSettings, 'blockSize'>,
  layout: Layout<Variant>,
): Scored<Variant> {
  const { rows, length } = batch
  const settings: DenoisingSettings = { ...bound, weighting: 'elbo', noise: {}, embeddingNoise: 0 }
  const noise = separateTurns(drawn, batch, bound.blockSize, 'apart')
  const scored = Uint8Array.from(batch.ids, (_, i) => (isScored(batch, i) ? 1 : 0))
  const { loss, feeds } = laidOut(batch, noise, scored, settings, layout)
  const capacity = copiesOf(drawn, layout) * rows * length
  const microBatch = {
    objective: layout.variant(settings, { copies: noise.copies }),
    rows,
    length,
    feeds: { ...feeds, ...lossFeeds(loss, { loss: loss.weights }, capacity) },
  }
  return { microBatch, tokens: loss.tokens }
}

const copiesOf = <Variant>({ copies }: Noise, { cleanCopy }: Layout<Variant>): number => copies + (cleanCopy ? 1 : 0)

function laidOut<Variant>(
  batch: Batch,
  noise: Noise,
  supervised: Uint8Array,
  settings: DenoisingSettings,
  layout: Layout<Variant>,
): {
  loss: LossPositions
  /** Of each token of the loss its place among the positions that are computed. */
  places: Int32Array
  feeds: Record<string, TensorData>
  tiles?: Tiles
} {
  const { maskTokenId, weighting, shift, blockSize } = settings
  const { cleanCopy } = layout
  if (maskTokenId === undefined) throw new UserError('a diffusion objective needs a mask token')
  const noised = noisedIds(batch.ids, noise, maskTokenId)
  const ids = cleanCopy ? Int32Array.from([...noised, ...batch.ids]) : noised
  const loss = lossPositions(noise, batch, supervised, weighting, { shift, blockSize, cleanCopy })
  const tiles = layout.tiles?.(batch, settings, noise, loss.index)
  if (!tiles) return { loss, places: loss.tokens, feeds: rowFeeds(batch, ids) }
  return {
    loss: { ...loss, index: placesIn(tiles, loss.index) },
    places: placesIn(tiles, loss.tokens),
    feeds: tileFeeds(batch, tiles, ids),
    tiles,
  }
}

const EMBEDDING_NOISE_STREAM = 0x656d6264

/** Gaussian noise of standard deviation `embeddingNoise` at masked positions (LLaDA2.0, section 7.1): [positions, width]. */
function noiseAt(
  { masked }: Noise,
  copiedRows: number,
  { rows, length }: Batch,
  { hiddenSize, embeddingNoise }: DenoisingSettings,
  { seed, step, row: firstRow }: Counters,
): Float32Array {
  const values = new Float32Array(copiedRows * length * hiddenSize)
  const vector = new Float32Array(hiddenSize)
  for (let start = 0; start < masked.length; start += length) {
    const copy = Math.floor(start / (rows * length))
    const row = firstRow + ((start / length) % rows)
    const draw = random(seed, EMBEDDING_NOISE_STREAM, step, row, copy)
    for (let i = start; i < start + length; i++) {
      if (masked[i] === 0) continue
      draw.fillNormal(vector)
      for (let j = 0; j < hiddenSize; j++) values[i * hiddenSize + j] = embeddingNoise * vector[j]!
    }
  }
  return values
}

const sum = (values: Iterable<number>): number => [...values].reduce((a, b) => a + b, 0)
