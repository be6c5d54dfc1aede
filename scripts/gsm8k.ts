// GSM8K's files as github.com/openai/grade-school-math has them.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { UserError } from '../src/core/types.ts'

/** The rows of train.jsonl or test.jsonl in a folder, where the name may have the prefix `gsm8k-`. */
export function gsm8kRows(folder: string, name: string): { question: string; answer: string }[] {
  const file = [join(folder, name), join(folder, `gsm8k-${name}`)].find((path) => existsSync(path))
  if (file === undefined) throw new UserError(`${join(folder, name)} is missing; download GSM8K's ${name} to it`)
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line, index) => {
      const row: unknown = JSON.parse(line)
      if (typeof row === 'object' && row !== null && 'question' in row && 'answer' in row)
        return { question: String(row.question), answer: String(row.answer) }
      throw new UserError(`${file}:${index + 1}: expected a row with "question" and "answer"`)
    })
}
