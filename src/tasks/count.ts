// Counting: `count(deaddee)=` is completed by each letter that occurs with how often it does, `a1 d3 e3`.
import { between, type SeededTask, symbols } from './seeded-task.ts'

const ALPHABET = 'abcdef'
const PROMPT = /^count\(([a-f]+)\)=$/

export const count: SeededTask = {
  prompt: (random) => `count(${symbols(random, ALPHABET, between(random, 8, 16))})=`,
  solve(prompt) {
    const text = PROMPT.exec(prompt)?.[1]
    if (text === undefined) return undefined
    return [...ALPHABET]
      .filter((letter) => text.includes(letter))
      .map((letter) => `${letter}${text.split(letter).length - 1}`)
      .join(' ')
  },
}
