// Turns decoded outputs into figures: exact-match accuracy with its interval, tokens per forward, tokens per second.
// Pure functions; knows nothing about how the outputs were made.
import { UserError } from '../core/types.ts'
import { check, type TaskName } from '../tasks/index.ts'

/** What a decoder made of one prompt. */
export interface TaskOutput {
  task: TaskName
  prompt: string
  /** The generated text before the end-of-text token. */
  output: string
  /** Generated tokens up to and including the end-of-text token. */
  tokens: number
  /** Forward passes spent on them, the one over the prompt included where it is a pass of its own. */
  forwards: number
  /** Wall-clock time spent on them. */
  seconds: number
}

export interface Accuracy {
  rows: number
  correct: number
  /** Share of right answers, 0 to 1. */
  accuracy: number
  /** Wilson's 95 % interval. */
  low: number
  high: number
}

export interface Throughput {
  tokens: number
  forwards: number
  seconds: number
  /** TPF, all tokens over all forwards: long answers weigh more than short ones. NaN without forwards. */
  tokensPerForward: number
  /** TPS, all tokens over all seconds. NaN without time. */
  tokensPerSecond: number
}

export type Score = Accuracy & Throughput

export interface TaskScores {
  /** In the order in which the tasks first occur. */
  tasks: { task: TaskName; score: Score }[]
  all: Score
}

const Z95 = 1.959963984540054

/**
 * Share of right answers with Wilson's score interval (Wilson 1927), which stays inside [0, 1] and is honest where
 * all answers are right. `z` is the number of standard errors, by default those of 95 %. NaN without rows.
 */
export function accuracy(correct: number, rows: number, z = Z95): Accuracy {
  if (!(Number.isInteger(correct) && Number.isInteger(rows) && correct >= 0 && correct <= rows)) {
    throw new UserError(`${correct} right answers of ${rows}: both must be whole numbers, the first not the larger`)
  }
  const p = correct / rows
  const centre = (p + z ** 2 / (2 * rows)) / (1 + z ** 2 / rows)
  const half = (z / (1 + z ** 2 / rows)) * Math.sqrt((p * (1 - p)) / rows + z ** 2 / (4 * rows ** 2))
  return {
    rows,
    correct,
    accuracy: p,
    low: correct === 0 ? 0 : Math.max(0, centre - half),
    high: correct === rows && rows > 0 ? 1 : Math.min(1, centre + half),
  }
}

/** Sums tokens, forwards and seconds; the ratios are of the sums, not means of ratios. */
export function throughput(outputs: Iterable<Pick<TaskOutput, 'tokens' | 'forwards' | 'seconds'>>): Throughput {
  let tokens = 0
  let forwards = 0
  let seconds = 0
  for (const output of outputs) {
    tokens += output.tokens
    forwards += output.forwards
    seconds += output.seconds
  }
  return {
    tokens,
    forwards,
    seconds,
    tokensPerForward: forwards > 0 ? tokens / forwards : Number.NaN,
    tokensPerSecond: seconds > 0 ? tokens / seconds : Number.NaN,
  }
}

/** Scores outputs per task and over all rows. */
export function scoreTasks(outputs: readonly TaskOutput[]): TaskScores {
  const score = (rows: readonly TaskOutput[]): Score => ({
    ...accuracy(rows.filter((row) => check(row.task, row.prompt, row.output)).length, rows.length),
    ...throughput(rows),
  })
  const names = [...new Set(outputs.map((output) => output.task))]
  return {
    tasks: names.map((task) => ({ task, score: score(outputs.filter((output) => output.task === task)) })),
    all: score(outputs),
  }
}

/**
 * How much more often `b` is right than `a` on the same prompts, as a share, with a 95 % interval from the paired
 * differences (normal approximation), which is narrower than what two separate intervals suggest.
 * Throws UserError where the two differ in length or are empty.
 */
export function pairedDifference(
  a: readonly boolean[],
  b: readonly boolean[],
  z = Z95,
): { difference: number; low: number; high: number } {
  const n = a.length
  if (n !== b.length || n === 0) throw new UserError(`cannot pair ${n} results with ${b.length}`)
  const gained = b.filter((right, i) => right && !a[i]).length
  const lost = a.filter((right, i) => right && !b[i]).length
  const difference = (gained - lost) / n
  const half = z * Math.sqrt(((gained + lost) / n - difference ** 2) / n)
  return { difference, low: Math.max(-1, difference - half), high: Math.min(1, difference + half) }
}
