// Runs or resumes the bigram run in the folder of the first argument and prints a line per step; made to be killed.
import { train } from '../../src/train/loop.ts'
import { bigramRun } from './bigram.ts'

const runDirectory = process.argv[2]
if (runDirectory === undefined) throw new Error('usage: run-bigram.ts RUN_DIRECTORY')

await train({
  ...bigramRun(runDirectory),
  resume: true,
  onEvent: (event) => {
    if (event.type === 'step') process.stdout.write(`${event.step}\n`)
  },
})
