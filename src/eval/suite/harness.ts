// Answers the rows of a task with several models in turn, so that a machine that gets busy slows all alike. Knows nothing of how
// a model is loaded or where answers are kept.
import { createHash } from 'node:crypto'
import { random } from '../../core/random.ts'
import { UserError } from '../../core/types.ts'
import type { Task } from '../../tasks/task.ts'
import { addNoise, drawFrom, type NoiseKind } from '../../tasks/text-noise.ts'
import type { Answer, ConditionRun, TaskRun } from './records.ts'

/** What a task asks of a model. */
export interface Request {
  prompt: string
  /** The prompt is text to be continued, not a question. */
  plain: boolean
  answerPrefix: string | undefined
  stop: readonly string[]
  maxNewTokens: number
  seed: number
  threshold: number | undefined
}

export type Written = Pick<Answer, 'text' | 'tokens' | 'forwards' | 'seconds' | 'firstSeconds' | 'stop'>

export interface Contestant {
  name: string
  write(request: Request): Promise<Written>
  /** ln p of each text behind the prompt. */
  choose(prompt: string, choices: readonly string[]): Promise<number[]>
  /** Whether it is measured at thresholds. */
  hasThreshold: boolean
}

/** Answers that were given before, by key. */
export interface AnswerStore {
  get(key: string): Answer | undefined
  put(key: string, answer: Answer): Promise<void>
}

export interface Condition {
  name: string
  threshold?: number
  noise?: NoiseKind
}

export interface HarnessOptions {
  task: Task
  rows: number
  samples: number
  maxNewTokens: number | undefined
  conditions: readonly Condition[]
  /** Of sampling and noise. */
  seed: number
  store: AnswerStore
  signal?: AbortSignal | undefined
  onAnswer?: (who: string) => void
}

/** The number of answers that `runTask` gives. */
export const answersOf = (contestants: readonly Contestant[], options: HarnessOptions): number =>
  contestants.reduce((sum, contestant) => sum + conditionsOf(contestant, options).length, 0) *
  options.samples *
  chosenRows(options).length

/** Rows that one contestant answers before the next has its turn. */
const TURN = 4

const chosenRows = ({ task, rows }: HarnessOptions): readonly unknown[] =>
  rows === 0 ? task.rows : task.rows.slice(0, rows)

const conditionsOf = ({ hasThreshold }: Contestant, { conditions, task }: HarnessOptions): Condition[] =>
  conditions.filter(
    ({ threshold, noise }) =>
      (threshold === undefined || (hasThreshold && !task.choices)) && (noise === undefined || task.alterable),
  )

/** By contestant, in their order. */
export async function runTask(contestants: readonly Contestant[], options: HarnessOptions): Promise<TaskRun[]> {
  const { task, samples, seed, store, signal, onAnswer } = options
  const rows = chosenRows(options)
  const maxNewTokens = options.maxNewTokens ?? task.maxNewTokens
  const runs = contestants.map(
    (contestant): TaskRun => ({
      name: task.name,
      settings: {
        ...task.settings,
        samples,
        ...(task.choices ? {} : { max_new_tokens: maxNewTokens, stop: JSON.stringify(task.stop) }),
      },
      metrics: task.choices && !task.chooseBy ? [...task.metrics, bySum(task)] : [...task.metrics],
      better: task.better ?? 'higher',
      conditions: conditionsOf(contestant, options).map((condition): ConditionRun => ({ ...condition, rows: [] })),
    }),
  )
  for (let start = 0; start < rows.length; start += TURN)
    for (const [i, contestant] of contestants.entries())
      for (const condition of (runs[i] as TaskRun).conditions)
        for (const [j, row] of rows.slice(start, start + TURN).entries()) {
          const noise = condition.noise as NoiseKind | undefined
          const alter = noise && ((text: string) => addNoise(text, noise, drawFrom(random(seed, NOISE, start + j))))
          const prompt = task.prompt(row, alter)
          const id = task.id(row)
          const answers: Answer[] = []
          for (let sample = 0; sample < samples; sample++) {
            signal?.throwIfAborted()
            const hash = createHash('sha256').update(prompt).digest('hex').slice(0, 16)
            const key = JSON.stringify([contestant.name, task.name, condition.name, id, sample, hash])
            let answer = store.get(key)
            if (!answer) {
              const request = {
                ...{ prompt, plain: task.plain ?? false, answerPrefix: task.answerPrefix?.(row), stop: task.stop },
                ...{ maxNewTokens, seed: seed + sample, threshold: condition.threshold },
              }
              try {
                answer = task.choices
                  ? await chosen(contestant, task, row, prompt)
                  : await scored(task, row, await contestant.write(request))
              } catch (error) {
                throw error instanceof UserError ? new UserError(`${task.name}, row ${id}: ${error.message}`) : error
              }
              await store.put(key, answer)
            }
            answers.push(answer)
            onAnswer?.(contestant.name)
          }
          const reference = task.reference(row)
          condition.rows.push({ id, prompt, answers, ...(reference === undefined ? {} : { reference }) })
        }
  return runs
}

const NOISE = 0x6e6f6973

const bySum = ({ metrics }: Task): string => `${metrics[0]} by sum`

async function scored(task: Task, row: unknown, written: Written): Promise<Answer> {
  const { scores, extracted, detail } = await task.score(row, written.text)
  return {
    ...written,
    scores: { ...scores },
    ...(extracted === undefined ? {} : { extracted }),
    ...(detail === undefined ? {} : { detail }),
  }
}

async function chosen(contestant: Contestant, task: Task, row: unknown, prompt: string): Promise<Answer> {
  const choices = task.choices?.(row) ?? []
  const before = performance.now()
  const logprobs = await contestant.choose(prompt, choices)
  const seconds = (performance.now() - before) / 1000
  const best = (values: readonly number[]) => String(values.indexOf(Math.max(...values)))
  const sum = best(logprobs)
  const text =
    task.chooseBy === 'sum' ? sum : best(logprobs.map((each, i) => each / Buffer.byteLength(choices[i] as string)))
  const { scores } = await task.score(row, text)
  const also = (await task.score(row, sum)).scores[task.metrics[0]] ?? 0
  return { text, seconds, logprobs, scores: { ...scores, [bySum(task)]: also } }
}
