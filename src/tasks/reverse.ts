// Reversal: `reverse(qbzkbae)=` is completed by the letters from last to first, `eabkzbq`.
import { between, type SeededTask, symbols } from './seeded-task.ts'

const PROMPT = /^reverse\(([a-z]+)\)=$/

export const reverse: SeededTask = {
  prompt: (random) => `reverse(${symbols(random, 'abcdefghijklmnopqrstuvwxyz', between(random, 4, 16))})=`,
  solve: (prompt) => PROMPT.exec(prompt)?.[1]?.split('').reverse().join(''),
}
