// Mixes rows of the seeded tasks with pieces of text into one jsonl file: the data of the embedded tiny model and of the
// quickstart. Knows nothing about tokens or training.
import { open, rename } from 'node:fs/promises'
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { type Split, TASK_NAMES, type TaskName, taskRow } from '../tasks/index.ts'

export interface MixtureOptions {
  seed: number
  /** Number of task rows; they cycle through `tasks` (default: all). */
  taskRows: number
  tasks?: readonly TaskName[]
  split?: Split
  /** Number of text rows, spread evenly between the task rows (default 0). */
  textRows?: number
  /** Where text rows come from; shuffled for every pass, and passed over as often as `textRows` asks for. */
  texts?: readonly string[]
}

export type MixtureRow = { prompt: string; completion: string } | { text: string }

/** The rows of a mixture, the same for the same options. Throws UserError where text rows are asked for without texts. */
export function* mixture(options: MixtureOptions): Generator<MixtureRow> {
  const { seed, taskRows, tasks = TASK_NAMES, split = 'train', textRows = 0, texts = [] } = options
  if (textRows > 0 && texts.length === 0)
    throw new UserError(`${textRows} text rows are asked for, and there is no text`)
  const total = taskRows + textRows
  let order: string[] = []
  for (let i = 0, task = 0, text = 0; i < total; i++) {
    if (Math.floor(((i + 1) * textRows) / total) > text) {
      if (order.length === 0) order = random(seed, text).shuffle([...texts])
      yield { text: order.pop()! }
      text++
    } else {
      const { prompt, completion } = taskRow(tasks[task % tasks.length]!, seed, Math.floor(task / tasks.length), split)
      yield { prompt, completion }
      task++
    }
  }
}

/** Writes rows as jsonl, atomically. The folder must exist. */
export async function writeJsonl(file: string, rows: Iterable<object>): Promise<void> {
  const temporary = `${file}.tmp`
  const handle = await open(temporary, 'w')
  try {
    let pending = ''
    for (const row of rows) {
      pending += `${JSON.stringify(row)}\n`
      if (pending.length > 1 << 20) {
        await handle.write(pending)
        pending = ''
      }
    }
    await handle.write(pending)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(temporary, file)
}

/** The texts of a jsonl file of `{"text": ...}` rows, read whole: meant for the small files beside the tiny model. */
export function readTexts(jsonl: string, file: string): string[] {
  return jsonl.split('\n').flatMap((line, index) => {
    if (line === '') return []
    const fail = (): never => {
      throw new UserError(`${file}:${index + 1}: expected a row such as {"text": "..."}`)
    }
    let row: unknown
    try {
      row = JSON.parse(line)
    } catch {
      return fail()
    }
    const text = typeof row === 'object' && row !== null && 'text' in row ? row.text : undefined
    return typeof text === 'string' && text !== '' ? [text] : fail()
  })
}
