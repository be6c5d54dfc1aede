// What a seeded task with an exact answer is. Knows nothing about models, tokens or files.
import type { Random } from '../core/random.ts'

export interface SeededTask {
  /** Draws one problem, up to and including the `=` after which the answer stands. */
  prompt(random: Random): string
  /** The only right completion of a prompt; undefined if the text is not one of this task's prompts. */
  solve(prompt: string): string | undefined
}

/** A whole number drawn uniformly from `low` to `high`, both included. */
export const between = (random: Random, low: number, high: number): number => low + random.integer(high - low + 1)

/** `length` symbols drawn independently from `alphabet`. */
export const symbols = (random: Random, alphabet: string, length: number): string =>
  Array.from({ length }, () => alphabet[random.integer(alphabet.length)]).join('')
