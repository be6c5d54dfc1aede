// Which tokens a training step hides: mask ratios per block or document, independent or complementary copies.
// Knows nothing about graphs, losses or the mask token; every draw is a function of its counters.
import type { Batch } from '../data/types.ts'
import { random } from '../random.ts'
import { UserError } from '../types.ts'

/** Smallest mask ratio, and with complementary copies the smallest of the inverse: it bounds the weight 1/t. */
export const minimumMaskRatio = 1e-3

/** How masks are drawn: part of a run's configuration. */
export interface NoiseOptions {
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
   * g = exp(s (1/2 - (j + 1/2) / B)), so that later tokens stay hidden longer, as in decoding. Default 0, every token alike.
   */
  positionDependent?: number
}

/** What the draws are a function of, beside the batch. */
export interface NoiseDraw {
  /** Block size; from the row length on, a block is a whole document (MDLM). */
  blockSize: number
  seed: number
  step: number
  microBatch: number
}

/** Arrays are row-major [copies, rows, length]. */
export interface Noise {
  copies: number
  /** 1 where the copy holds the mask token. */
  masked: Uint8Array
  /** Mask ratio of the position's block or document in this copy; 0 in a row's tail, which holds no document. */
  t: Float32Array
  /** ELBO weight of a masked position, -alpha'/(1 - alpha). Absent where it is 1/t. */
  elboWeight?: Float32Array
}

// First element of the random streams, so that no other user of the same seed shares them.
const RATIO_STREAM = 0x74
const MASK_STREAM = 0x6d61736b

/**
 * Draws the masks of a batch: t ~ U[low, high] per block (row, document, floor(position / blockSize)) or per document,
 * then each maskable token is masked with probability t, independently (LLaDA2.0, equations 1 and 2, linear schedule).
 * The value at a position depends on (seed, step, microBatch, copy, position in the batch) alone.
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
  const { seed, step, microBatch } = options
  const [low, high] = ratioBand(options)
  if (!(Number.isInteger(blockSize) && blockSize >= 1)) {
    throw new UserError(`Noise: block_size is ${blockSize}; give a whole number of at least 1.`)
  }

  const { rows, length, documents, positions, maskable } = batch
  const size = rows * length
  const extent = Math.min(blockSize, length)
  const masked = new Uint8Array(copies * size)
  const t = new Float32Array(copies * size)
  const elboWeight = positionDependent > 0 && blockSize > 1 ? new Float32Array(copies * size) : undefined
  const ratioDraws = new Float32Array(size)
  const maskDraws = new Float32Array(size)

  for (let copy = 0; copy < copies; copy += complementary ? 2 : 1) {
    random(seed, RATIO_STREAM, step, microBatch, copy).fillUniform(ratioDraws)
    random(seed, MASK_STREAM, step, microBatch, copy).fillUniform(maskDraws)
    const first = copy * size
    const second = first + size
    for (let i = 0; i < size; i++) {
      if (documents[i]! < 0) continue
      const position = positions[i]!
      const offset = position % blockSize
      const start = i - (perBlock ? offset : position)
      const ratio = blockSize === 1 ? (complementary ? 0.5 : 1) : Math.fround(low + (high - low) * ratioDraws[start]!)
      t[first + i] = ratio
      if (complementary) t[second + i] = 1 - ratio

      let probability = ratio
      if (elboWeight) {
        const exponent = Math.exp(positionDependent * (0.5 - (offset + 0.5) / extent))
        probability = ratio ** exponent
        elboWeight[first + i] = exponent / ratio
        if (complementary) elboWeight[second + i] = (exponent * ratio ** (exponent - 1)) / (1 - probability)
      }
      if (maskable[i] === 0) continue
      const isMasked = maskDraws[i]! < probability
      masked[first + i] = isMasked ? 1 : 0
      if (complementary) masked[second + i] = isMasked ? 0 : 1
    }
  }
  return elboWeight ? { copies, masked, t, elboWeight } : { copies, masked, t }
}

/** The band that t is drawn from, after the limits at its ends. Throws UserError where an option is out of range. */
function ratioBand(options: NoiseOptions): [low: number, high: number] {
  const { copies = 1, complementary = false, noiseRangeLow = 0, noiseRangeHigh = 1, positionDependent = 0 } = options
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
  const low = Math.max(noiseRangeLow, minimumMaskRatio)
  const high = Math.max(noiseRangeHigh, minimumMaskRatio)
  if (!complementary) return [low, high]
  const limit = 1 - minimumMaskRatio
  return [Math.min(low, limit), Math.min(high, limit)]
}
