// The all-masked strides that drafts are trained on: where they stand in a batch, what they predict. Knows nothing
// about graphs or models.

import { random } from '../core/random.ts'
import { isScored } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import type { Counters } from './noise.ts'
import { turnsOf } from './turns.ts'

/**
 * Strides of at most `size` mask tokens, each behind one position of the clean row, its anchor: the masks stand at anchor + 1,
 * anchor + 2, ..., and as in the autoregressive base the state at i predicts token i + 1. A stride ends where its text does, or
 * its turn of a chat, so that a group of `size` masks holds one long stride or several short ones.
 */
export interface Strides {
  size: number
  /** Groups per row. */
  count: number
  /** Of each mask, [rows, count * size]: index of its anchor in the row. Masks of a stride follow each other. */
  anchors: Int32Array
  /** Its position in the document, the token that it predicts, and 1 if it predicts one. */
  positions: Int32Array
  labels: Int32Array
  weights: Float32Array
  /** Index, into [rows, length], of the clean token that stands where the mask does. */
  clean: Int32Array
  /** Masks that predict something. */
  predictions: number
}

export interface StrideDraw extends Counters {
  size: number
  count: number
}

const ANCHOR_STREAM = 0x616e6368

/**
 * Draws the anchors of a batch, without repetition, from the positions after which a stride predicts a scored token: in
 * rows with a prompt from its last token on. Each stride goes into the first group that has room for all of it, else it is
 * cut to the largest room that is left, until there is none: every anchor is drawn as often.
 */
export function drawStrides(batch: Batch, { size, count, seed, step, row: firstRow }: StrideDraw): Strides {
  const { rows, length, ids, documents, positions } = batch
  const masks = count * size
  const strides: Strides = {
    size,
    count,
    anchors: new Int32Array(rows * masks),
    positions: new Int32Array(rows * masks),
    labels: new Int32Array(rows * masks),
    weights: new Float32Array(rows * masks),
    clean: new Int32Array(rows * masks),
    predictions: 0,
  }
  const turns = turnsOf(batch)
  for (let row = 0; row < rows; row++) {
    const [start, end] = [row * length, (row + 1) * length]
    const predicts = (anchor: number, token: number) =>
      token < end && documents[token] === documents[anchor] && turns[token] === turns[anchor] && isScored(batch, token)
    /** Masks behind an anchor up to the last that predicts something. */
    const needed = (anchor: number) => {
      let most = size
      while (most > 0 && !predicts(anchor, anchor + 1 + most)) most--
      return most
    }
    const eligible: number[] = []
    for (let i = start; i < end; i++) if (documents[i]! >= 0 && predicts(i, i + 2)) eligible.push(i)
    random(seed, ANCHOR_STREAM, step, firstRow + row).shuffle(eligible)
    const used = new Array<number>(count).fill(0)
    strides.clean.fill(start, row * masks, (row + 1) * masks)
    for (const anchor of eligible) {
      const whole = needed(anchor)
      const enough = used.findIndex((taken) => taken + whole <= size)
      const group = enough === -1 ? used.indexOf(Math.min(...used)) : enough
      const most = Math.min(whole, size - used[group]!)
      if (most === 0) break
      const first = row * masks + group * size + used[group]!
      used[group]! += most
      for (let offset = 0; offset < most; offset++) {
        const mask = first + offset
        strides.anchors[mask] = anchor - start
        strides.clean[mask] = anchor + 1 + offset
        strides.positions[mask] = positions[anchor]! + 1 + offset
        if (!predicts(anchor, anchor + 2 + offset)) continue
        strides.labels[mask] = ids[anchor + 2 + offset]!
        strides.weights[mask] = 1
        strides.predictions++
      }
    }
  }
  return strides
}
