// The tests of python/unmask_torch, which are Python's own. Skipped without PyTorch: test/torch.ts.
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { hasTorch, python } from './torch.ts'

it.skipIf(!hasTorch)('the tests of python/unmask_torch pass', async () => {
  const cwd = fileURLToPath(new URL('../python', import.meta.url))
  const { stderr } = await promisify(execFile)(
    python,
    ['-m', 'unittest', 'discover', '--start-directory', 'tests', '--top-level-directory', '.'],
    { cwd },
  )
  expect(stderr).toMatch(/^OK$/m)
})
