// What people meet where PyTorch or memory is missing. A shell script is in the place of Python: neither an old PyTorch nor a full
// machine can be had in a test.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { UserError } from '../../core/types.ts'
import { startTorch } from './process.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-python-'))
})
afterAll(() => rm(folder, { recursive: true }))

let scripts = 0
async function python(...lines: string[]): Promise<string> {
  const path = join(folder, `python-${scripts++}`)
  await writeFile(path, ['#!/bin/sh', ...lines, ''].join('\n'), { mode: 0o755 })
  return path
}

const greeting = (torch: string) => `echo '{"torch": "${torch}", "python": "3.12.0", "processes": 1}'`
const asked = 'read request'

it.each([
  ['no PyTorch', [`echo "ModuleNotFoundError: No module named 'torch'" >&2`, 'exit 1'], /lacks PyTorch 2\.6 or later/],
  ['an old PyTorch', [greeting('2.5.1+cpu'), asked], /has PyTorch 2\.5\.1\+cpu; needed: PyTorch 2\.6 or later/],
  [
    'more processes than expected',
    [`echo '{"torch": "2.13.0", "processes": 2}'`, asked],
    /2 processes of PyTorch came/,
  ],
])('%s is said at the start', async (_, lines, message) => {
  const starting = startTorch({ python: await python(...lines) })
  await expect(starting).rejects.toThrow(UserError)
  await expect(starting).rejects.toThrow(message)
})

it.each([
  [
    'a worker that says so',
    [`echo '{"id": 0, "error": "gradients: DefaultCPUAllocator: can'"'"'t allocate memory"}'`],
    /can't allocate memory\n.*micro_batch_size/,
  ],
  ['a worker that the system ends', ['kill -9 $$'], /ended with SIGKILL\n.*micro_batch_size/],
])('where memory is short: %s', async (_, lines, message) => {
  // What start-up files print is no answer.
  const torch = await startTorch({ python: await python('echo Welcome', greeting('2.13.0'), asked, ...lines) })
  const request = torch.request('gradients')
  await expect(request).rejects.toThrow(UserError)
  await expect(request).rejects.toThrow(message)
  await torch.dispose()
})
