// Prints the hash of three training steps, made in a process of its own; see src/train/step.test.ts.
import { hashOfThreeSteps } from './tiny.ts'

console.log(await hashOfThreeSteps())
