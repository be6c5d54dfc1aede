// The seeded tasks with exact answers as tasks like all others.
import { check, type TaskName, type TaskRow, taskRow } from './index.ts'
import { defineTask, type Task, verdict } from './task.ts'

/** `count` held-out rows. */
export const seededTask = (
  name: TaskName,
  { count, seed }: { count: number; seed: number },
): Task<TaskRow & { id: string }> =>
  defineTask({
    name,
    rows: Array.from({ length: count }, (_, i) => ({ ...taskRow(name, seed, i, 'test'), id: String(i) })),
    settings: { prompt: 'as given', shots: 0, scored: 'exact', seed },
    metrics: ['right'],
    maxNewTokens: 64,
    stop: [],
    id: ({ id }) => id,
    prompt: ({ prompt }) => prompt,
    alterable: false,
    reference: ({ completion }) => completion,
    score: async ({ prompt }, answer) => verdict('right', check(name, prompt, answer)),
  })
