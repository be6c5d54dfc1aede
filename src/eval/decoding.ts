// Decodes held-out prompts and sums up what came out: answers, tokens per forward, tokens per second.
// Knows tokens and tasks; how a model decodes is the caller's.

import { type TaskName, taskRow } from '../tasks/index.ts'
import type { DecodingSummary, Sample, ScoreSummary, TaskComparison } from './report/types.ts'
import { type Accuracy, scoreTasks, type TaskOutput, throughput } from './score.ts'

export interface Prompt {
  text: string
  ids: readonly number[]
  /** The task that checks the answer; undefined for prompts without a right answer. */
  task: TaskName | undefined
  /** The right answer, or what stood there in the held-out text. */
  expected: string | undefined
}

/** What a decoder returns for one prompt. */
export interface Generated {
  /** The text, and its tokens up to and including the one that ended it. */
  text: string
  ids: readonly number[]
  /** Forward passes, that over the prompt included where it is one of its own. */
  forwards: number
  seconds: number
}

export type Decode = (prompt: readonly number[]) => Promise<Generated>

/** A prompt with what a decoder made of it. */
export interface Output extends Generated {
  prompt: Prompt
}

/** Held-out rows of the seeded tasks: `rows` of each, encoded as training rendered them. */
export function taskPrompts(
  names: readonly TaskName[],
  rows: number,
  { seed, encode }: { seed: number; encode: (text: string) => readonly number[] },
): Prompt[] {
  return names.flatMap((task) =>
    Array.from({ length: rows }, (_, index) => {
      const { prompt, completion } = taskRow(task, seed, index, 'test')
      return { text: prompt, ids: encode(prompt), task, expected: completion }
    }),
  )
}

/** Decodes the prompts one after the other, as one user would, all or until there are enough; stops with the signal's reason. */
export async function decodePrompts(
  prompts: readonly Prompt[],
  decode: Decode,
  {
    signal,
    onPrompt,
    enough = () => false,
  }: {
    signal?: AbortSignal
    onPrompt?: (done: number, output: Output) => void
    enough?: (outputs: readonly Output[]) => boolean
  },
): Promise<Output[]> {
  const outputs: Output[] = []
  for (const prompt of prompts) {
    signal?.throwIfAborted()
    const output = { ...(await decode(prompt.ids)), prompt }
    outputs.push(output)
    onPrompt?.(outputs.length, output)
    if (enough(outputs)) break
  }
  return outputs
}

/** Accuracy over the rows with a task, tokens per forward and per second over all. */
export function summarize(outputs: readonly Output[]): DecodingSummary {
  const scored = taskOutputs(outputs)
  const { tokens, forwards, tokensPerForward, tokensPerSecond } = throughput(outputs.map(counts))
  const score = scored.length > 0 ? toSummary(scoreTasks(scored).all) : undefined
  return { score, tokens, forwards, tokensPerForward, tokensPerSecond }
}

/** Scores by task of two decoders on the same prompts; either may be empty. */
export function compareTasks(ar: readonly Output[], diffusion: readonly Output[]): TaskComparison[] {
  const byTask = (outputs: readonly Output[]) =>
    new Map<string, ScoreSummary>(
      scoreTasks(taskOutputs(outputs)).tasks.map(({ task, score }) => [task, toSummary(score)]),
    )
  const left = byTask(ar)
  const right = byTask(diffusion)
  return [...new Set([...left.keys(), ...right.keys()])].map((task) => ({
    task,
    ar: left.get(task),
    diffusion: right.get(task),
  }))
}

/** A few prompts of each task, or of those without one, with what both decoders said. */
export function chooseSamples(ar: readonly Output[], diffusion: readonly Output[], perTask = 3): Sample[] {
  const taken = new Map<TaskName | undefined, number>()
  const samples: Sample[] = []
  const longer = diffusion.length > 0 ? diffusion : ar
  for (const [index, { prompt }] of longer.entries()) {
    const count = taken.get(prompt.task) ?? 0
    if (count >= perTask) continue
    taken.set(prompt.task, count + 1)
    const { task, text, expected } = prompt
    samples.push({ task, prompt: text, expected, ar: ar[index]?.text, diffusion: diffusion[index]?.text })
  }
  return samples
}

const counts = ({ ids, forwards, seconds }: Output) => ({ tokens: ids.length, forwards, seconds })

function taskOutputs(outputs: readonly Output[]): TaskOutput[] {
  return outputs.flatMap((output) => {
    const { task, text: prompt } = output.prompt
    return task === undefined ? [] : [{ task, prompt, output: output.text, ...counts(output) }]
  })
}

const toSummary = ({ rows, accuracy, low, high }: Accuracy): ScoreSummary => ({ rows, accuracy, low, high })
