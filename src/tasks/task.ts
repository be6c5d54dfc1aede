// What a task is: rows, the prompt of each, and the score of an answer. Knows nothing about models, tokens or files.

/** What a score says of an answer. */
export interface Verdict {
  /** 0 to 1 by metric. */
  scores: Readonly<Record<string, number>>
  /** What was read out of the answer; undefined where nothing was found. */
  extracted?: string
  /** Why it is wrong, where there is more to say. */
  detail?: string
}

/** Alters the part of a prompt that a person would have written: the question, not the frame around it. */
export type Alter = (text: string) => string

export type Better = 'higher' | 'half'

export interface Task<Row = unknown> {
  readonly name: string
  readonly rows: readonly Row[]
  /** What decides a score besides the model, for printing beside it: shots, extraction, where answers end. */
  readonly settings: Readonly<Record<string, string | number>>
  /** The first is the main one. */
  readonly metrics: readonly [string, ...string[]]
  /** Most tokens of an answer, unless settings say otherwise. */
  readonly maxNewTokens: number
  /** An answer ends before the first of these. */
  readonly stop: readonly string[]
  /** The name of a row, unlike all others of the task. */
  id(row: Row): string
  prompt(row: Row, alter?: Alter): string
  /** Whether `prompt` has a part that can be altered and still asks the same. */
  readonly alterable: boolean
  /** With a chat template: text with which the answer begins already. */
  answerPrefix?(row: Row): string
  /** The prompt is text to be continued, whatever the model's prompts are like. Default false; choices are always so. */
  readonly plain?: boolean
  /** Which main metric is the better: the higher (default), or the nearer to one half. */
  readonly better?: Better
  /** What may follow the prompt, of which the likelihood chooses. An answer is then a number from 0. */
  choices?(row: Row): readonly string[]
  /** Choices by the log-probability per byte (default), or by its sum. */
  readonly chooseBy?: 'bytes' | 'sum'
  /** The right answer, for people; undefined where many are right. */
  reference(row: Row): string | undefined
  score(row: Row, answer: string): Promise<Verdict>
  /** What an answer is worth to reinforcement learning, 0 to 1. */
  reward(row: Row, answer: string): Promise<number>
}

/** A task whose reward is its main metric. */
export function defineTask<Row>(parts: Omit<Task<Row>, 'reward'>): Task<Row> {
  return {
    ...parts,
    reward: async (row, answer) => (await parts.score(row, answer)).scores[parts.metrics[0]] ?? 0,
  }
}

/** A verdict with one metric. */
export const verdict = (metric: string, right: boolean, rest: Omit<Verdict, 'scores'> = {}): Verdict => ({
  scores: { [metric]: Number(right) },
  ...rest,
})
