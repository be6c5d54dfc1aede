// The all-masked strides that an accelerator is trained on: where they stand in a batch, what they predict. Knows nothing
// about graphs or models.

import { random } from '../core/random.ts'
import { isScored } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import type { Counters } from './noise.ts'

/**
 * Strides of `size` mask tokens, `count` per row, each behind one position of the clean row, its anchor: the masks stand at
 * anchor + 1 ... anchor + size, and as in the autoregressive base the state at i predicts token i + 1.
 */
export interface Strides {
  size: number
  count: number
  /** Index of each anchor in its row: [rows, count]. */
  anchors: Int32Array
  /** Of each mask: its position in the document, the token that it predicts, and 1 if it predicts one: [rows, count * size]. */
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
 * rows with a prompt from its last token on. A row with fewer of them than `count` has strides without weight.
 */
export function drawStrides(batch: Batch, { size, count, seed, step, row: firstRow }: StrideDraw): Strides {
  const { rows, length, ids, documents, positions } = batch
  const masks = rows * count * size
  const strides: Strides = {
    size,
    count,
    anchors: new Int32Array(rows * count),
    positions: new Int32Array(masks),
    labels: new Int32Array(masks),
    weights: new Float32Array(masks),
    clean: new Int32Array(masks),
    predictions: 0,
  }
  const predicts = (anchor: number, token: number, end: number) =>
    token < end && documents[token] === documents[anchor] && isScored(batch, token)
  for (let row = 0; row < rows; row++) {
    const end = (row + 1) * length
    const eligible: number[] = []
    for (let i = row * length; i < end; i++) if (documents[i]! >= 0 && predicts(i, i + 2, end)) eligible.push(i)
    random(seed, ANCHOR_STREAM, step, firstRow + row).shuffle(eligible)
    for (let stride = 0; stride < count; stride++) {
      const anchor = eligible[stride] ?? row * length
      const used = stride < eligible.length
      strides.anchors[row * count + stride] = anchor - row * length
      for (let offset = 0; offset < size; offset++) {
        const mask = (row * count + stride) * size + offset
        const place = Math.min(anchor + 1 + offset, end - 1)
        strides.clean[mask] = place
        // Masks behind the end of a document predict nothing, and those before do not see them.
        strides.positions[mask] = Math.min(positions[anchor]! + 1 + offset, length - 1)
        if (!used || !predicts(anchor, anchor + 2 + offset, end)) continue
        strides.labels[mask] = ids[anchor + 2 + offset]!
        strides.weights[mask] = 1
        strides.predictions++
      }
    }
  }
  return strides
}
