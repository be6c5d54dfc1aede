// Wrong tokens in noised copies, for models that learn to correct tokens. Knows nothing about graphs or models.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { isScored } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import type { Counters, Noise } from './noise.ts'

/** Which tokens of a noised copy are wrong, or may be. */
export interface EditOptions {
  /**
   * Share of the noised blocks whose masks the model fills itself before it is trained on them: DMax's on-policy uniform training
   * takes half of the rows. Default 0.
   */
  ownPredictions?: number
  /** Share of the visible tokens that are replaced by other tokens of the batch (token to token, LLaDA2.1). Default 0. */
  corruptedTokens?: number
  /** Forwards that fill those masks, each from what the one before it left. Default 1. */
  ownTurns?: number
}

/** Arrays are [copies, rows, length]. */
export interface Edits {
  /** 1 at masks that the model fills. Absent where it fills none of any block. */
  own?: Uint8Array
  /** The token that stands in place of a visible one, or -1. */
  replaced: Int32Array
}

const OWN_STREAM = 0x6f776e
const REPLACE_STREAM = 0x72657063

export const hasEdits = ({ ownPredictions = 0, corruptedTokens = 0 }: EditOptions): boolean =>
  ownPredictions > 0 || corruptedTokens > 0

/**
 * Draws them for masks that are drawn already. Blocks and tokens are chosen independently. A token that replaces another is as
 * frequent as it is among the scored tokens of the batch, and is not the one that it replaces.
 */
export function drawEdits(
  batch: Batch,
  { copies, masked, t }: Noise,
  {
    ownPredictions = 0,
    corruptedTokens = 0,
    blockSize,
    seed,
    step,
    row: firstRow,
  }: EditOptions & Counters & { blockSize: number },
): Edits {
  for (const [name, share] of Object.entries({ own_predictions: ownPredictions, corrupted_tokens: corruptedTokens }))
    if (!(share >= 0 && share <= 1)) throw new UserError(`Noise: ${name} is ${share}; give a share from 0 to 1.`)
  const { rows, length, ids, documents, positions, maskable } = batch
  const size = rows * length
  const own = ownPredictions > 0 ? new Uint8Array(copies * size) : undefined
  const replaced = new Int32Array(copies * size).fill(-1)
  const others = ids.filter((_, i) => isScored(batch, i))
  const ownDraws = new Float32Array(length)
  for (let copy = 0; copy < copies; copy++)
    for (let row = 0; row < rows; row++) {
      random(seed, OWN_STREAM, step, firstRow + row, copy).fillUniform(ownDraws)
      const draws = random(seed, REPLACE_STREAM, step, firstRow + row, copy)
      for (let column = 0; column < length; column++) {
        const i = row * length + column
        const at = copy * size + i
        if (documents[i]! < 0) continue
        if (masked[at] === 1) {
          if (own && ownDraws[column - (positions[i]! % blockSize)]! < ownPredictions) own[at] = 1
        } else if (t[at]! > 0 && maskable[i] === 1 && others.length > 0 && draws.uniform() < corruptedTokens) {
          const other = others[draws.integer(others.length)]!
          if (other !== ids[i]) replaced[at] = other
        }
      }
    }
  return { own, replaced }
}
