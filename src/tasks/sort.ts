// Sorting: `sort(8304117)=` is completed by the digits in ascending order, `0113478`.
import { between, symbols, type Task } from './task.ts'

const PROMPT = /^sort\((\d+)\)=$/

export const sort: Task = {
  prompt: (random) => `sort(${symbols(random, '0123456789', between(random, 4, 16))})=`,
  solve: (prompt) => PROMPT.exec(prompt)?.[1]?.split('').sort().join(''),
}
