// Seeded tasks with exact answers: rows for training and for evaluation that can never be the same, and the checker.
// Knows nothing about models or tokens, and uses no Node API. Adding a task is adding a file and an entry here.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { add } from './add.ts'
import { count } from './count.ts'
import { reverse } from './reverse.ts'
import type { SeededTask } from './seeded-task.ts'
import { sort } from './sort.ts'

const tasks = { add, sort, reverse, count } satisfies Record<string, SeededTask>

export type TaskName = keyof typeof tasks

/** The names of all tasks, in the order in which mixed rows cycle through them. */
export const TASK_NAMES = Object.keys(tasks) as TaskName[]

/** `test` rows are held out: no seed and no index of `train` ever gives one of their prompts. */
export type Split = 'train' | 'test'

export interface TaskRow {
  task: TaskName
  prompt: string
  completion: string
}

/** One prompt in this many belongs to the held-out side. */
const HELD_OUT_SHARE = 16

/** The side a prompt belongs to: decided by a hash of its text (FNV-1a, finished as in MurmurHash3), so by nothing else. */
export function splitOf(prompt: string): Split {
  let hash = 0x811c9dc5
  for (let i = 0; i < prompt.length; i++) hash = Math.imul(hash ^ prompt.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) % HELD_OUT_SHARE === 0 ? 'test' : 'train'
}

/**
 * The row that (task, seed, index, split) names; the same on every machine. Rows of one split may repeat, which is
 * rare where a task has many prompts. `seed` and `index` are whole numbers from 0.
 */
export function taskRow(task: TaskName, seed: number, index: number, split: Split = 'train'): TaskRow {
  const draws = random(seed, TASK_NAMES.indexOf(task), index)
  for (;;) {
    const prompt = tasks[task].prompt(draws)
    if (splitOf(prompt) === split) return { task, prompt, completion: tasks[task].solve(prompt)! }
  }
}

/** Rows `start` to `start + count - 1` of an endless sequence that cycles through `names` (default: all tasks). */
export function* taskRows(options: {
  seed: number
  count: number
  start?: number
  split?: Split
  names?: readonly TaskName[]
}): Generator<TaskRow> {
  const { seed, count, start = 0, split = 'train', names = TASK_NAMES } = options
  for (let i = start; i < start + count; i++) {
    yield taskRow(names[i % names.length]!, seed, Math.floor(i / names.length), split)
  }
}

/** Whether `output`, the text before the end-of-text token, is exactly the answer to `prompt`. */
export function check(task: TaskName, prompt: string, output: string): boolean {
  const answer = tasks[task].solve(prompt)
  if (answer === undefined) throw new UserError(`${JSON.stringify(prompt)} is not a prompt of the task ${task}`)
  return output === answer
}
