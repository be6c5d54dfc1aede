// Sorting: `sort(qbzkbae)=` is completed by the letters in alphabetical order, `abbekqz`.
import { between, letters, type Task } from './task.ts'

const PROMPT = /^sort\(([a-z]+)\)=$/

export const sort: Task = {
  prompt: (random) => `sort(${letters(random, 'abcdefghijklmnopqrstuvwxyz', between(random, 4, 16))})=`,
  solve: (prompt) => PROMPT.exec(prompt)?.[1]?.split('').sort().join(''),
}
