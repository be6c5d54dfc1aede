// Sorting: `sort(8304117)=` is completed by the digits in ascending order, `0113478`.
import { between, type SeededTask, symbols } from './seeded-task.ts'

const PROMPT = /^sort\((\d+)\)=$/

export const sort: SeededTask = {
  prompt: (random) => `sort(${symbols(random, '0123456789', between(random, 4, 16))})=`,
  solve: (prompt) => PROMPT.exec(prompt)?.[1]?.split('').sort().join(''),
}
