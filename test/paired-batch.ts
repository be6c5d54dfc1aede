// Two preference pairs in two rows: prompts of 3 and 5 tokens, answers of 4 to 9, with reference values. Used by tests only.
import { random } from '../src/core/random.ts'
import { type PairDocuments, pairBatches } from '../src/data/pairs.ts'
import type { Batch } from '../src/data/types.ts'

/** Tokens are below 38; 0 is the EOS. */
const answer = (seed: number, prompt: number, size: number) => {
  const draw = (stream: number, count: number) => {
    const numbers = random(seed, stream)
    return Array.from({ length: count }, () => 1 + numbers.integer(37))
  }
  const ids = Int32Array.from([...draw(prompt, prompt), ...draw(100 + size, size), 0])
  return { id: `${seed}`, ids, maskable: Uint8Array.from(ids, (_, i) => (i < prompt ? 0 : 1)) }
}

export const pairs: PairDocuments[] = [
  { id: 0, chosen: answer(1, 3, 4), rejected: answer(1, 3, 9) },
  { id: 1, chosen: answer(2, 5, 8), rejected: answer(2, 5, 6) },
]

export function pairedBatch({ length, blockSize }: { length: number; blockSize: number }): Batch {
  const options = { rows: 4, length, blockSize, eosId: 0, byteLength: (ids: ArrayLike<number>) => ids.length }
  const drawn = pairs.map((pair) => ({ pair, epoch: 0 }))
  return pairBatches(drawn, options, (id) => ({ chosen: -20 - id, rejected: -30 + 3 * id }))[0]!
}
