// From what a person writes, NAME=FILE?shots=8, to a task. Reads files through what it is given.
import { UserError } from '../core/types.ts'
import { bias, biasCompletion } from './bias.ts'
import { gsm8k } from './gsm8k.ts'
import { humaneval } from './humaneval.ts'
import { TASK_NAMES, type TaskName } from './index.ts'
import { ifeval } from './instructions.ts'
import { ownTask } from './own.ts'
import type { Source } from './rows.ts'
import type { RunProgram } from './sandbox.ts'
import { seededTask } from './seeded.ts'
import type { Task } from './task.ts'

/** What can stand behind the ? of a task. */
export const taskSettings = {
  rows: 'rows that are answered, from the first on; 0 for all',
  shots: 'examples before the question (gsm8k)',
  examples: 'file of examples for shots',
  samples: 'answers to each row',
  max_new_tokens: 'most tokens of an answer',
  stop: 'text before which an answer ends (own rows)',
} as const

/** Data sets whose form is known. Any other name with a file is one of own rows. */
export const dataSets = ['gsm8k', 'humaneval', 'ifeval'] as const

/** Tasks whose rows are here. */
const builtIn: Readonly<Record<string, () => Task>> = {
  bias: () => bias() as Task,
  'bias-completion': () => biasCompletion() as Task,
}

/** Names of tasks without a file. */
export const taskNames: readonly string[] = [...TASK_NAMES, ...Object.keys(builtIn)]

export interface TaskSpec {
  name: string
  file: string | undefined
  settings: Partial<Record<keyof typeof taskSettings, string>>
}

/** An opened task, with what was asked for it alone. */
export interface OpenedTask {
  task: Task
  /** Undefined where the run decides. */
  rows: number | undefined
  samples: number | undefined
  maxNewTokens: number | undefined
}

/** NAME, NAME=FILE or NAME=FILE?key=value&... Throws UserError that names what is wrong. */
export function parseTask(text: string): TaskSpec {
  const [, name, file, query] = /^([A-Za-z0-9][\w.-]*)(?:=([^?]+))?(?:\?(.*))?$/.exec(text) ?? []
  if (name === undefined) throw new UserError(`${text}: a task is NAME, NAME=FILE or NAME=FILE?key=value&...`)
  const hasRows = taskNames.includes(name)
  if (hasRows === (file !== undefined))
    throw new UserError(
      hasRows ? `${text}: the task ${name} has no file` : `${text}: the task needs a file: ${name}=FILE`,
    )
  const settings = Object.fromEntries(new URLSearchParams(query ?? ''))
  const unknown = Object.keys(settings).find((key) => !Object.hasOwn(taskSettings, key))
  if (unknown !== undefined)
    throw new UserError(`${text}: unknown setting ${unknown}; known: ${Object.keys(taskSettings).join(', ')}`)
  return { name, file, settings }
}

/** Throws UserError for wrong settings or rows, and where programs have no sandbox. */
export async function openTask(
  { name, file, settings }: TaskSpec,
  {
    read,
    ...options
  }: {
    read: (path: string) => Promise<string>
    template: 'none' | 'chat'
    seed: number
    /** Rows of a seeded task. */
    seededRows: number
    sandbox: () => Promise<RunProgram>
  },
): Promise<OpenedTask> {
  const whole = (key: keyof typeof taskSettings, least: number): number | undefined => {
    const text = settings[key]
    if (text === undefined) return undefined
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < least)
      throw new UserError(`${name}: ${key} is ${JSON.stringify(text)}; it must be a whole number of at least ${least}`)
    return value
  }
  const source = async (path: string): Promise<Source> => ({ path, text: await read(path) })
  const asked = {
    rows: whole('rows', 0),
    samples: whole('samples', 1),
    maxNewTokens: whole('max_new_tokens', 1),
  }
  const only = (key: 'shots' | 'examples' | 'stop', who: boolean) => {
    if (settings[key] !== undefined && !who) throw new UserError(`${name}: the task has no setting ${key}`)
  }
  const isKnown = (dataSets as readonly string[]).includes(name)
  for (const key of ['shots', 'examples'] as const) only(key, name === 'gsm8k')
  only('stop', file !== undefined && !isKnown)
  const open = async (): Promise<Task> => {
    if (Object.hasOwn(builtIn, name)) return (builtIn[name] as () => Task)()
    if (file === undefined)
      return seededTask(name as TaskName, { count: asked.rows || options.seededRows, seed: options.seed }) as Task
    const data = await source(file)
    if (name === 'gsm8k') {
      const examples = settings.examples === undefined ? undefined : await source(settings.examples)
      return gsm8k(data, { shots: whole('shots', 0) ?? 0, examples }) as Task
    }
    if (name === 'humaneval')
      return humaneval(data, { template: options.template, run: await options.sandbox() }) as Task
    if (name === 'ifeval') return ifeval(data) as Task
    const stop = settings.stop === undefined ? [] : [settings.stop]
    return (await ownTask(name, data, { stop, sandbox: options.sandbox })) as Task
  }
  const task = await open()
  // Rows that stand here are balanced: all of them are answered unless somebody says otherwise.
  return { task, ...asked, rows: asked.rows ?? (Object.hasOwn(builtIn, name) ? 0 : undefined) }
}
