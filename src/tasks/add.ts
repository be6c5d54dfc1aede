// Addition: `add(000407,081536)=` is completed by `0081943`. Numbers are padded with zeros to a fixed width, so that a
// digit's place in the text is its place in the number; the answer runs from the highest digit to the lowest.
import { between, type SeededTask } from './seeded-task.ts'

const DIGITS = 6
const PROMPT = /^add\((\d{6}),(\d{6})\)=$/

export const add: SeededTask = {
  // The number of digits is drawn first, so that short numbers are as frequent as long ones.
  prompt(random) {
    const operand = () => String(random.integer(10 ** between(random, 1, DIGITS))).padStart(DIGITS, '0')
    return `add(${operand()},${operand()})=`
  },
  solve(prompt) {
    const [, a, b] = PROMPT.exec(prompt) ?? []
    return a === undefined ? undefined : String(Number(a) + Number(b)).padStart(DIGITS + 1, '0')
  },
}
