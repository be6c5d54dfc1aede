// Which tokens a training step hides: mask ratios per block or document, independent or complementary copies.
// Knows nothing about graphs, losses or the mask token; every draw is a function of its counters.

import { type Random, random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { isScored } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import { drawEdits, type EditOptions, type Edits, hasEdits } from './edits.ts'
import { drawGroups, type Joined } from './groups.ts'

/** Smallest mask ratio, and with complementary copies the smallest of the inverse: it bounds the weight 1/t. */
export const minimumMaskRatio = 1e-3

/** How masks are drawn: part of a run's configuration. */
export interface NoiseOptions extends EditOptions {
  /** Noised copies per clean copy, K. Default 1. */
  copies?: number
  /** Copy 2j+1 hides exactly the maskable tokens that copy 2j shows; `copies` must be even. Default false. */
  complementary?: boolean
  /** Band of the mask ratio t ~ U[low, high], 0 <= low <= high <= 1. Defaults 0 (raised to 0.001) and 1. */
  noiseRangeLow?: number
  noiseRangeHigh?: number
  /** true: one t per block (default); false: one t per document. */
  perBlock?: boolean
  /**
   * Strength of position-dependent masking: the token at offset j of a block of B is masked with probability t^g,
   * g = exp(s (1/2 - (j + 1/2) / B)), so that later tokens stay hidden longer, as in decoding; where a document ends before
   * its block does, B is what there is of it. Default 0, every token alike.
   */
  positionDependent?: number
  /**
   * true (default): the EOS padding of a document is masked like its text. false: it is masked in every copy, as decoding
   * finds what lies behind the end of a text.
   */
  supervisePadding?: boolean
  /**
   * Most neighbouring blocks that are noised together, each seeing the noised ones before it; see `drawGroups`. Their mask
   * ratios rise: the first is drawn from the band, each of the others between the one before it and the band's upper end.
   * Default 1.
   */
  groupSize?: number
}

/** Where a batch stands: with the seed of the run, all that a draw is a function of. */
export interface Counters {
  seed: number
  /** Updates before this one; for evaluation, the number of the draw. */
  step: number
  /** Number of the batch's first row among the rows of the step, however they are split into batches. */
  row: number
}

export interface NoiseDraw extends Counters {
  /** Block size; from the row length on, a block is a whole document (MDLM). */
  blockSize: number
}

/** Arrays are row-major [copies, rows, length]. */
export interface Noise {
  copies: number
  /** 1 where the copy holds the mask token. */
  masked: Uint8Array
  /** Mask ratio of the position's block or document in this copy; 0 in a row's tail, which holds no document. */
  t: Float32Array
  /** ELBO weight of a masked position, -alpha'/(1 - alpha). Absent where it is 1/t. */
  elboWeight: Float32Array | undefined
  /** 1 where a mask carries no loss: the token is predicted in another copy, or in none. Absent where there are none. */
  unscored?: Uint8Array
  /** Which blocks see the noised block before them. Absent where none does. */
  joined?: Joined
  /** Where tokens are wrong, or the model's own. Absent where they are not: then masks alone carry loss, else all tokens. */
  edits?: Edits
}

// First element of the random streams, so that no other user of the same seed shares them.
const RATIO_STREAM = 0x74
const MASK_STREAM = 0x6d61736b

/**
 * Draws the masks of a batch: t ~ U[low, high] per block (row, document, floor(position / blockSize)) or per document,
 * then each maskable token is masked with probability t, independently (LLaDA2.0, equations 1 and 2, linear schedule).
 * The value at a position depends on (seed, step, number of the row, copy, position in the row) alone.
 *
 * - Complementary: of a pair, the second copy has t' = 1 - t; `high` is lowered to 0.999 so that t' is at least 0.001.
 * - Block size 1: a lone masked token is predicted from the same context whatever t is, so t is 1 (1/2 for
 *   complementary pairs) instead of a draw: every token counts once, and the ELBO is the exact likelihood.
 * - A block, or a whole batch, may come out without any masked token; it then carries no loss.
 *
 * @throws UserError where an option is out of range.
 */
export function drawNoise(batch: Batch, options: NoiseOptions & NoiseDraw): Noise {
  const { copies = 1, complementary = false, perBlock = true, positionDependent = 0, blockSize } = options
  const { seed, step, row: firstRow, supervisePadding = true, groupSize = 1 } = options
  const [low, high] = ratioBand(options)
  if (!(Number.isInteger(blockSize) && blockSize >= 1)) {
    throw new UserError(`Noise: block_size is ${blockSize}; give a whole number of at least 1.`)
  }

  const { rows, length, documents, positions, maskable, padding } = batch
  const size = rows * length
  const masked = new Uint8Array(copies * size)
  const t = new Float32Array(copies * size)
  const elboWeight = positionDependent > 0 && blockSize > 1 ? new Float32Array(copies * size) : undefined
  const lengths = elboWeight && documentLengths(batch)
  const joined =
    groupSize > 1 ? drawGroups(batch, { blockSize, size: groupSize, copies, seed, step, row: firstRow }) : undefined
  const ratioDraws = new Float32Array(length)
  const maskDraws = new Float32Array(length)

  for (let copy = 0; copy < copies; copy += complementary ? 2 : 1) {
    const first = copy * size
    const second = first + size
    for (let i = 0; i < size; i++) {
      const column = i % length
      if (column === 0) {
        const row = firstRow + i / length
        random(seed, RATIO_STREAM, step, row, copy).fillUniform(ratioDraws)
        random(seed, MASK_STREAM, step, row, copy).fillUniform(maskDraws)
      }
      if (documents[i]! < 0) continue
      const position = positions[i]!
      const offset = position % blockSize
      const start = column - (perBlock ? offset : position)
      // Of the group's block before this one, or the band's lower end.
      const least = joined?.[first + i] ? t[first + i - offset - 1]! : low
      const ratio =
        blockSize === 1 ? (complementary ? 0.5 : 1) : Math.fround(least + (high - least) * ratioDraws[start]!)
      t[first + i] = ratio
      if (complementary) t[second + i] = 1 - ratio

      let probability = ratio
      if (elboWeight) {
        const extent = Math.min(blockSize, lengths![i]! - (position - offset))
        const exponent = Math.exp(positionDependent * (0.5 - (offset + 0.5) / extent))
        probability = ratio ** exponent
        elboWeight[first + i] = exponent / ratio
        if (complementary) elboWeight[second + i] = (exponent * ratio ** (exponent - 1)) / (1 - probability)
      }
      if (maskable[i] === 0) continue
      const always = !supervisePadding && padding[i] === 1
      const isMasked = always || maskDraws[column]! < probability
      masked[first + i] = isMasked ? 1 : 0
      if (complementary) masked[second + i] = isMasked && !always ? 0 : 1
    }
  }
  const noise: Noise = { copies, masked, t, elboWeight, joined }
  return hasEdits(options) ? { ...noise, edits: drawEdits(batch, noise, options) } : noise
}

/** Length of the document that each position belongs to, its padding included. */
function documentLengths({ rows, length, documents, positions }: Batch): Int32Array {
  const lengths = new Int32Array(rows * length)
  for (let i = lengths.length - 1; i >= 0; i--) {
    const continues = (i + 1) % length !== 0 && documents[i + 1] === documents[i]
    lengths[i] = continues ? lengths[i + 1]! : positions[i]! + 1
  }
  return lengths
}

const BOUND_STREAM = 0x626f756e

/** Draws of a bound: half of a pair of independent draws, in stratum `stratum` of `strata`. */
export interface BoundDraw extends Omit<NoiseDraw, 'step'> {
  stratum: number
  strata: number
}

/**
 * The masks with which the bound of a text is estimated: in every block, of its n scored tokens k are masked, k uniform over
 * the share of 1..n that belongs to the stratum, and each set of k is as likely as another; t is k/n, so that 1/t weighs the
 * block (Nie et al. 2025, LLaDA, equation 6, per block). The mean over the strata estimates the negative ELBO without bias.
 * Two copies: independent draws of the same distribution, whose difference estimates the error. Padding is masked, as what lies
 * behind the end of a text is in decoding; prompts and what else is not scored never are.
 */
export function drawBound(batch: Batch, { blockSize, seed, row, stratum, strata }: BoundDraw): Noise {
  const { length } = batch
  return maskScored(batch, blockSize, 2, (scored, start, copy) => {
    const draws = random(seed, BOUND_STREAM, stratum, row + Math.floor(start / length), start % length, copy)
    return someOf(scored, (stratum + draws.uniform()) / strata, draws)
  })
}

/** 1 to all of the tokens, of a share in [0, 1). */
const someOf = (tokens: readonly number[], share: number, draws: Random): number[] =>
  draws.shuffle([...tokens]).slice(0, 1 + Math.floor(tokens.length * share))

/**
 * Copies of a batch in which of the scored tokens of each block those are masked that `choose` returns, at least one. `scored`
 * are their indices in [rows, length], `start` is that of the block's first token.
 */
function maskScored(
  batch: Batch,
  blockSize: number,
  copies: number,
  choose: (scored: readonly number[], start: number, copy: number) => readonly number[],
): Noise {
  const { rows, length, documents, padding } = batch
  const size = rows * length
  const masked = new Uint8Array(copies * size)
  const t = new Float32Array(copies * size)
  for (let copy = 0; copy < copies; copy++) {
    const first = copy * size
    for (let i = 0; i < size; i++) masked[first + i] = padding[i]!
    for (let start = 0; start < size; ) {
      const end = blockEnd(batch, start, blockSize)
      const scored: number[] = []
      for (let i = start; i < end; i++) if (isScored(batch, i)) scored.push(i)
      if (documents[start]! >= 0 && scored.length > 0) {
        const chosen = choose(scored, start, copy)
        for (const i of chosen) masked[first + i] = 1
        for (const i of scored) t[first + i] = chosen.length / scored.length
      }
      start = end
    }
  }
  return { copies, masked, t, elboWeight: undefined }
}

const PAIR_STREAM = 0x70616972
const HELD_OUT_PAIR_STREAM = 0x6865_6c64

/** Draws for the answers of preference pairs: as many copies as `draws`. */
export interface PairDraw {
  seed: number
  blockSize: number
  draws: number
  /** Draw 2j + 1 masks what draw 2j shows, and all of a block of which draw 2j masks all. `draws` is even. Default false. */
  antithetic?: boolean
  /** Draws apart from those of training, the same for every epoch. Default false. */
  heldOut?: boolean
}

/**
 * As `drawBound`, but the masks of an answer depend on its pair, the epoch and its own length alone: they are those that the
 * reference model was measured with, wherever the pair is packed. Of the n draws (antithetic: n / 2) each is of a stratum of
 * its own. Both answers of a pair get the same random numbers. The mean over the draws estimates the negative ELBO without bias.
 */
export function drawPairs(batch: Batch, { seed, blockSize, draws: copies, antithetic, heldOut }: PairDraw): Noise {
  const { length, positions, documents } = batch
  const strata = antithetic ? copies / 2 : copies
  if (!(Number.isInteger(strata) && strata >= 1))
    throw new UserError(
      `draws is ${copies}; give a whole number of at least 1${antithetic ? ', even if antithetic' : ''}.`,
    )
  const pairOf = new Map<string, { id: number; epoch: number }>()
  const key = (i: number) => `${Math.floor(i / length)} ${documents[i]}`
  for (const pair of batch.pairs ?? []) for (const start of [pair.chosen, pair.rejected]) pairOf.set(key(start), pair)
  return maskScored(batch, blockSize, copies, (scored, start, copy) => {
    const pair = pairOf.get(key(start))
    if (!pair) throw new Error('a document of the batch is of no pair')
    const stratum = antithetic ? Math.floor(copy / 2) : copy
    const stream = heldOut ? [HELD_OUT_PAIR_STREAM, pair.id] : [PAIR_STREAM, pair.id, pair.epoch]
    const numbers = random(seed, ...stream, positions[start]!, stratum)
    const chosen = someOf(scored, (stratum + numbers.uniform()) / strata, numbers)
    if (!antithetic || copy % 2 === 0 || chosen.length === scored.length) return chosen
    const shown = new Set(chosen)
    return scored.filter((i) => !shown.has(i))
  })
}

/** Index behind the block that begins at `start`: in its row, of one document. */
function blockEnd({ length, documents, positions }: Batch, start: number, blockSize: number): number {
  let end = start + 1
  const continues = () =>
    documents[end] === documents[start] && (documents[end]! < 0 || positions[end]! % blockSize > 0)
  while (end % length !== 0 && continues()) end++
  return end
}

/** The band that t is drawn from, after the limits at its ends. Throws UserError where an option is out of range. */
function ratioBand(options: NoiseOptions): [low: number, high: number] {
  const { copies = 1, complementary = false, noiseRangeLow = 0, noiseRangeHigh = 1, positionDependent = 0 } = options
  const { groupSize = 1, perBlock = true } = options
  if (!(Number.isInteger(copies) && copies >= 1)) {
    throw new UserError(`Noise: copies is ${copies}; give a whole number of at least 1.`)
  }
  if (complementary && copies % 2 !== 0) {
    throw new UserError(`Noise: complementary masks come in pairs, but copies is ${copies}; give an even number.`)
  }
  if (!(noiseRangeLow >= 0 && noiseRangeLow <= noiseRangeHigh && noiseRangeHigh <= 1 && noiseRangeHigh > 0)) {
    throw new UserError(
      `Noise: noise_range_low ${noiseRangeLow} and noise_range_high ${noiseRangeHigh} must satisfy 0 <= low <= high <= 1 and high > 0.`,
    )
  }
  if (!(positionDependent >= 0 && positionDependent <= 8)) {
    throw new UserError(`Noise: position_dependent is ${positionDependent}; give a number from 0 to 8.`)
  }
  if (groupSize > 1 && (complementary || !perBlock))
    throw new UserError(
      'Noise: the mask ratios of a group rise: group_size goes without complementary copies, and per block.',
    )
  const low = Math.max(noiseRangeLow, minimumMaskRatio)
  const high = Math.max(noiseRangeHigh, minimumMaskRatio)
  if (!complementary) return [low, high]
  const limit = 1 - minimumMaskRatio
  return [Math.min(low, limit), Math.min(high, limit)]
}
