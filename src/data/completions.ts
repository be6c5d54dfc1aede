// Batches from completions that are in memory as token ids, such as those that a model has written itself: an endless
// stream, and a fixed list, packed as documents of files are. Knows nothing about who wrote them.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { createPacker, type PackOptions } from './pack.ts'
import type { Batch, BatchSource } from './types.ts'

export interface Completion {
  prompt: readonly number[]
  completion: readonly number[]
}

const ORDER = 0x6f72
const HELD_OUT = 0x6865

const toPiece = ({ prompt, completion }: Completion, id: string, length: number) => {
  const ids = Int32Array.from([...prompt, ...completion].slice(0, length))
  return { id, ids, maskable: Uint8Array.from(ids, (_, i) => (i < prompt.length ? 0 : 1)) }
}

/**
 * Splits by a draw for each index, so that more completions later do not move the earlier ones. Of few completions one at
 * least is held out, and not all, unless the fraction is 0.
 */
export function splitCompletions(
  completions: readonly Completion[],
  seed: number,
  fraction: number,
): { train: Completion[]; heldOut: Completion[] } {
  const draws = completions.map((_, i) => random(seed, HELD_OUT, i).uniform())
  const order = [...completions.keys()].sort((a, b) => draws[a]! - draws[b]!)
  const asked = draws.filter((draw) => draw < fraction).length
  const count = fraction > 0 && completions.length > 1 ? Math.min(Math.max(asked, 1), completions.length - 1) : asked
  const held = new Set(order.slice(0, count))
  return {
    train: completions.filter((_, i) => !held.has(i)),
    heldOut: completions.filter((_, i) => held.has(i)),
  }
}

/**
 * An endless stream: each epoch in another order, documents packed first-fit until one finds no room, which begins the next
 * batch. A batch is a function of the number of documents before it.
 */
export function completionSource(
  completions: readonly Completion[],
  options: PackOptions & { seed: number },
): BatchSource {
  const { seed, length } = options
  const usable = completions.filter(({ prompt, completion }) => completion.length > 0 && prompt.length < length)
  if (usable.length === 0)
    throw new UserError(`no completion to train on: all ${completions.length} are empty or their prompts fill a row`)
  let drawn = 0
  let order: { epoch: number; documents: readonly number[] } | undefined
  const document = (index: number): number => {
    const epoch = Math.floor(index / usable.length)
    if (order?.epoch !== epoch) order = { epoch, documents: random(seed, ORDER, epoch).shuffle([...usable.keys()]) }
    return order.documents[index % usable.length]!
  }
  return {
    async next() {
      const packer = createPacker(options)
      for (;;) {
        const index = document(drawn)
        if (!packer.place(toPiece(usable[index]!, String(index), length))) return packer.finish()
        drawn++
      }
    },
    position: () => ({ drawn, documents: usable.length }),
    async restore(position) {
      if (
        position.documents !== usable.length ||
        !Number.isSafeInteger(position.drawn) ||
        (position.drawn as number) < 0
      )
        throw new UserError('the completions have changed since the position was saved')
      drawn = position.drawn as number
    },
  }
}

/** Each completion at most once, until `maxTokens` tokens are packed. */
export function completionBatches(
  completions: readonly Completion[],
  options: PackOptions,
  maxTokens: number,
): Batch[] {
  const batches: Batch[] = []
  const waiting = completions.filter(({ prompt }) => prompt.length < options.length)
  let tokens = 0
  for (let next = 0; next < waiting.length && tokens < maxTokens; ) {
    const packer = createPacker(options)
    while (next < waiting.length && packer.place(toPiece(waiting[next]!, String(next), options.length))) next++
    const batch = packer.finish()
    tokens += batch.tokens
    batches.push(batch)
  }
  return batches
}
