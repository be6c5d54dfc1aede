// Groups of neighbouring blocks that are noised together, as decoding refines several blocks at a time (multi-block teacher
// forcing, MBD-LMs). Knows nothing about graphs or models.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import type { Counters } from './noise.ts'
import { turnsOf } from './turns.ts'

const GROUP_STREAM = 0x67726f75

/** Which blocks are noised together: [copies, rows, length], 1 in a block that sees the noised block before it. */
export type Joined = Uint8Array

/**
 * Cuts the blocks of each document into groups of 1 to `size` neighbours, each number as likely as another, in every copy
 * anew. A block sees the blocks of its group before it as they are noised, and the clean blocks before its group. It joins the
 * block before it only where decoding has both in its buffer: where that one holds tokens that may be masked, of one turn, and
 * it holds nothing that is given.
 */
export function drawGroups(
  batch: Batch,
  {
    blockSize,
    size,
    copies,
    seed,
    step,
    row: firstRow,
  }: Counters & { blockSize: number; size: number; copies: number },
): Joined {
  if (!(Number.isInteger(size) && size >= 1))
    throw new UserError(`Noise: group_size is ${size}; give a whole number of at least 1.`)
  const { rows, length, documents, positions, maskable } = batch
  const turns = turnsOf(batch)
  const joined = new Uint8Array(copies * rows * length)
  const every = (start: number, test: (i: number) => boolean) => {
    for (let i = start; i < start + blockSize; i++) if (!test(i)) return false
    return true
  }
  const joins = (start: number) =>
    positions[start]! > 0 &&
    every(start, (i) => maskable[i] === 1) &&
    every(start - blockSize, (i) => turns[i] === turns[start - blockSize]) &&
    !every(start - blockSize, (i) => maskable[i] === 0)
  for (let copy = 0; copy < copies; copy++)
    for (let row = 0; row < rows; row++) {
      const draws = random(seed, GROUP_STREAM, step, firstRow + row, copy)
      let left = 0
      for (let start = row * length; start < (row + 1) * length; start += blockSize) {
        if (documents[start]! < 0) break
        if (left > 0 && joins(start)) {
          joined.fill(1, copy * rows * length + start, copy * rows * length + start + blockSize)
          left--
        } else left = draws.integer(size)
      }
    }
  return joined
}
