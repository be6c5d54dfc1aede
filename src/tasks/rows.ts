// Rows of tasks from JSON lines, checked one by one. Reads no files.
import type * as z from 'zod'
import { UserError } from '../core/types.ts'
import { check, describeProblems } from '../formats/check.ts'
import { checkJsonStructure } from '../formats/json.ts'

/** A file that was read. */
export interface Source {
  /** Where it came from, for messages. */
  path: string
  text: string
}

const MAX_DEPTH = 64
const MAX_ROWS = 1_000_000

/** One row a line; empty lines are left out. Throws UserError that names the first line that is wrong, or a file without rows. */
export function parseRows<S extends z.ZodType>({ path, text }: Source, schema: S): z.output<S>[] {
  const rows: z.output<S>[] = []
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    const where = `${path}:${index + 1}`
    if (rows.length === MAX_ROWS) throw new UserError(`${where}: more than ${MAX_ROWS} rows`)
    let value: unknown
    try {
      checkJsonStructure(line, MAX_DEPTH)
      value = JSON.parse(line)
    } catch (error) {
      throw new UserError(`${where}: not a line of JSON: ${(error as Error).message}`)
    }
    const result = check(schema, value)
    if ('problems' in result) throw new UserError(`${where}: ${describeProblems(result.problems)}`)
    rows.push(result.data)
  }
  if (rows.length === 0) throw new UserError(`${path}: has no rows`)
  return rows
}

/** Throws UserError where two rows have one name. */
export function checkNames(path: string, names: readonly string[]): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw new UserError(`${path}: two rows are named ${JSON.stringify(twice)}`)
}
