// Turns of a chat that share a block: what each of them may see there. Knows nothing about graphs or models.
import type { Batch } from '../data/types.ts'
import type { Noise } from './noise.ts'

/**
 * Turn of each token in its document, from 0: a prompt and the answer behind it. A turn ends where tokens that may be masked
 * are followed by one that may not.
 */
export function turnsOf({ maskable, positions }: Pick<Batch, 'maskable' | 'positions'>): Int32Array {
  const turns = new Int32Array(maskable.length)
  for (let i = 1; i < turns.length; i++)
    turns[i] = positions[i] === 0 ? 0 : turns[i - 1]! + (maskable[i - 1]! > maskable[i]! ? 1 : 0)
  return turns
}

/**
 * How turns that share a block are trained. A block is denoised with attention both ways, so that an answer would see what the
 * user says to it, which is not there when it is written.
 *
 * - `apart`: each turn in a noised copy of the block of its own, where the turns before it are clean and those behind it masked.
 * - `first`: the first turn of the block as with `apart`; the others carry no loss there (LLaDA2.2, section 3.2).
 * - `together`: all in one copy, where they see each other.
 */
export const turnRules = ['apart', 'first', 'together'] as const
export type TurnRule = (typeof turnRules)[number]

/**
 * The noise with the turns of each block kept apart by the rule. Copies of the turns behind the first of a block stand behind
 * the copies as drawn: n turns in a block make n times as many copies, and what the others hold in the added ones carries no
 * loss. Where no block holds several turns, the noise is returned as it is.
 */
export function separateTurns(noise: Noise, batch: Batch, blockSize: number, rule: TurnRule): Noise {
  const { documents, positions } = batch
  if (rule === 'together') return noise
  const size = documents.length
  const turns = turnsOf(batch)
  /** Of each token, how many turns of its block stand before its own. */
  const rank = turns.map((turn, i) => (documents[i]! < 0 ? 0 : turn - turns[i - (positions[i]! % blockSize)]!))
  const ranks = rank.reduce((a, b) => Math.max(a, b), 0) + 1
  if (ranks === 1) return noise

  const copies = rule === 'first' ? noise.copies : noise.copies * ranks
  const grown = <T extends Uint8Array | Int32Array | Float32Array>(values: T): T => {
    const out = new (values.constructor as new (length: number) => T)(copies * size)
    for (let start = 0; start < out.length; start += values.length) out.set(values, start)
    return out
  }
  const masked = grown(noise.masked)
  const unscored = new Uint8Array(copies * size)
  const edits = noise.edits && {
    ...(noise.edits.own && { own: grown(noise.edits.own) }),
    replaced: grown(noise.edits.replaced),
  }
  for (let at = 0; at < masked.length; at++) {
    const i = at % size
    if (documents[i]! < 0) continue
    const own = Math.floor(at / (noise.copies * size))
    if (rank[i] !== own) {
      unscored[at] = 1
      if (edits?.own) edits.own[at] = 0
      if (edits) edits.replaced[at] = -1
    }
    if (rank[i]! < own) masked[at] = 0
    else if (rank[i]! > own) masked[at] = 1
  }
  return {
    copies,
    masked,
    t: grown(noise.t),
    elboWeight: noise.elboWeight && grown(noise.elboWeight),
    unscored,
    ...(noise.joined && { joined: grown(noise.joined) }),
    edits,
  }
}

/** 1 for the tokens that carry loss in some copy. */
export function scoredTurns(supervised: Uint8Array, noise: Noise): Uint8Array {
  const { unscored } = noise
  if (!unscored) return supervised
  const size = supervised.length
  return supervised.map((flag, i) => {
    for (let at = i; at < unscored.length; at += size) if (unscored[at] === 0) return flag
    return 0
  })
}
