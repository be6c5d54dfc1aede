import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { lockFolder } from './lock.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-lock-'))
})
afterEach(() => rm(folder, { recursive: true }))

const lockText = (holder: object) => writeFile(join(folder, '.lock'), JSON.stringify(holder))

it('is held by one at a time, and free again afterwards', async () => {
  const unlock = await lockFolder(folder)
  await expect(lockFolder(folder)).rejects.toThrow(`${folder}: in use by process ${process.pid} on ${hostname()}`)
  await unlock()
  await (await lockFolder(folder))()
})

it('is had by one of many who ask at the same time, also where a dead process left it', async () => {
  const child = spawn(process.execPath, ['-e', ''])
  await new Promise((resolve) => child.on('close', resolve))
  await lockText({ pid: child.pid, host: hostname(), process_start: null })
  const asked = await Promise.allSettled(Array.from({ length: 20 }, () => lockFolder(folder)))
  expect(asked.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
})

it('is held by another process while that runs', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
  const closed = new Promise((resolve) => child.on('close', resolve))
  await lockText({ pid: child.pid, host: hostname(), process_start: null })
  await expect(lockFolder(folder)).rejects.toThrow(`in use by process ${child.pid}`)
  child.kill('SIGKILL')
  await closed
  await (await lockFolder(folder))()
})

it('of a process with the number of this one, from before a restart, is taken over', async () => {
  await lockText({ pid: process.pid, host: hostname(), process_start: '1' })
  await (await lockFolder(folder))()
})

it.skipIf(process.platform !== 'linux')(
  'of an earlier process with a number that is used again is taken over',
  async () => {
    await lockText({ pid: process.ppid, host: hostname(), process_start: '1' })
    await (await lockFolder(folder))()
  },
)

it.each([
  ['of another machine', JSON.stringify({ pid: 1, host: 'elsewhere.example' }), /in use by process 1 on elsewhere/],
  ['that is no lock of this kind', 'x', /in use by another process. .* delete .*\.lock/],
])('%s stays', async (_, text, message) => {
  await writeFile(join(folder, '.lock'), text)
  await expect(lockFolder(folder)).rejects.toThrow(message)
  expect(await readFile(join(folder, '.lock'), 'utf8')).toBe(text)
})
