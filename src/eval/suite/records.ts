// What a run of the suite leaves behind, as one JSON file: every answer, every likelihood, and how they came to be. Reads no files.
import * as z from 'zod'
import { UserError } from '../../core/types.ts'
import { check, describeProblems } from '../../formats/check.ts'

const answer = z.object({
  text: z.string(),
  scores: z.record(z.string(), z.number()),
  extracted: z.string().optional(),
  detail: z.string().optional(),
  seconds: z.number(),
  /** Of texts that were written: tokens, forwards, seconds to the first token, and what ended it. */
  tokens: z.number().optional(),
  forwards: z.number().optional(),
  firstSeconds: z.number().optional(),
  stop: z.string().optional(),
  /** Of choices: the log-probability of each. */
  logprobs: z.array(z.number()).optional(),
})

const condition = z.object({
  /** `plain`, `threshold 0.8` or a kind of noise. */
  name: z.string(),
  threshold: z.number().optional(),
  noise: z.string().optional(),
  rows: z.array(
    z.object({ id: z.string(), prompt: z.string(), reference: z.string().optional(), answers: z.array(answer) }),
  ),
})

const task = z.object({
  name: z.string(),
  settings: z.record(z.string(), z.union([z.string(), z.number()])),
  metrics: z.array(z.string()).min(1),
  better: z.enum(['higher', 'half']),
  conditions: z.array(condition),
})

const domain = z.object({
  name: z.string(),
  /** Exact, or the bound of block diffusion. */
  exact: z.boolean(),
  /** By row of packed documents: nats, their standard error over the draws of the noise, scored tokens, bytes of text. */
  rows: z.array(z.object({ nats: z.number(), stderr: z.number(), tokens: z.number(), bytes: z.number() })),
  calibration: z.object({ error: z.number(), tokens: z.number() }).optional(),
})

const run = z.object({
  format: z.literal('unmask-eval-1'),
  created: z.string(),
  command: z.string(),
  versions: z.record(z.string(), z.string()),
  machine: z.record(z.string(), z.unknown()),
  model: z.object({
    source: z.string(),
    name: z.string(),
    mode: z.string(),
    blockSize: z.number(),
    parameters: z.number(),
  }),
  /** Template, seed, decoding. */
  settings: z.record(z.string(), z.unknown()),
  tasks: z.array(task),
  domains: z.array(domain),
})

export type Answer = z.output<typeof answer>
export type ConditionRun = z.output<typeof condition>
export type TaskRun = z.output<typeof task>
export type DomainRun = z.output<typeof domain>
export type SuiteRun = z.output<typeof run>

export const answerSchema = answer

/** Throws UserError for a text that is no run of the suite. */
export function parseRun(path: string, text: string): SuiteRun {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new UserError(`${path}: not valid JSON: ${(error as Error).message}`)
  }
  const result = check(run, value)
  if ('problems' in result)
    throw new UserError(`${path}: is no run of \`unmask eval suite\`: ${describeProblems(result.problems.slice(0, 3))}`)
  return result.data
}
