// Choosing the true continuation of a text among those of other texts, by likelihood, as multiple-choice benchmarks do: what
// a small model does better than chance without following instructions. Knows forwards of autoregressive models.

import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { encodePrompt } from '../data/index.ts'
import type { Cache } from '../decode/cache.ts'
import type { Forward } from '../decode/forward.ts'
import { logProbabilities } from '../decode/sampling.ts'
import type { Tokenizer } from '../tokenizer/types.ts'

export interface ChoiceItem {
  prompt: string
  /** What may follow; the first is what does. */
  choices: readonly string[]
}

/**
 * `count` items (or as many as there are rows), drawn without repetition: the completion of a row among those of
 * `alternatives` other rows, which differ from it and from each other. Throws UserError if there are fewer.
 */
export function choiceItems(
  rows: readonly { prompt: string; completion: string }[],
  { count, alternatives, seed }: { count: number; alternatives: number; seed: number },
): ChoiceItem[] {
  const completions = [...new Set(rows.map(({ completion }) => completion))]
  if (completions.length <= alternatives)
    throw new UserError(`${rows.length} rows have too few different completions for ${alternatives} alternatives`)
  const draw = random(seed)
  return draw
    .shuffle([...rows])
    .slice(0, count)
    .map(({ prompt, completion }) => {
      const choices = new Set([completion])
      while (choices.size <= alternatives) choices.add(completions[draw.integer(completions.length)])
      return { prompt, choices: [...choices] }
    })
}

/** Which items a model gets right: those whose first choice has the largest log-probability per byte of UTF-8. */
export async function choose(forward: Forward, tokenizer: Tokenizer, items: readonly ChoiceItem[]): Promise<boolean[]> {
  const right: boolean[] = []
  for (const { prompt, choices } of items) {
    const ids = encodePrompt(prompt, tokenizer, { template: 'plain', separator: '' })
    if (ids.length === 0) throw new UserError('the prompt has no tokens: there is nothing to continue')
    const cache = forward.createCache()
    try {
      const store = ids.length - 1
      if (store > 0) await forward.run(cache, { ids: ids.slice(0, -1), blockSize: 1, rows: [], store })
      const continuations = choices.map((text) => tokenizer.encode(text, { special: 'text', continues: true }))
      const sums = await logProbabilitiesAfter(forward, cache, ids[store], continuations)
      const [first, ...others] = sums.map((sum, i) => sum / new TextEncoder().encode(choices[i]).length)
      right.push(others.every((score) => score < first))
    } finally {
      await cache.free()
    }
  }
  return right
}

/** ln p(continuation | what is in the cache, `last`) of each, in one forward: none sees another. */
async function logProbabilitiesAfter(
  forward: Forward,
  cache: Cache,
  last: number,
  continuations: readonly (readonly number[])[],
): Promise<number[]> {
  const ids: number[] = []
  const positions: number[] = []
  const ends: number[] = []
  for (const tokens of continuations) {
    const end = ids.length + tokens.length
    for (const [i, token] of [last, ...tokens.slice(0, -1)].entries()) {
      ids.push(token)
      positions.push(cache.length + i)
      ends.push(end)
    }
  }
  const rows = ids.map((_, i) => i)
  const { logits } = await forward.run(cache, {
    ids,
    blockSize: { positions, blocks: rows, ends },
    rows,
    store: 0,
    logits: true,
  })
  const width = logits!.length / ids.length
  let row = 0
  return continuations.map((tokens) => {
    let sum = 0
    for (const token of tokens) {
      sum += logProbabilities(logits!.subarray(row * width, (row + 1) * width), 1)(token)
      row++
    }
    return sum
  })
}
