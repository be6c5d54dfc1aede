// What a server owes to whoever reads its log: nothing that a client has to wait for.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { command } from '../built.ts'
import { tiny } from './models.ts'

const flags = ['--port', '0', '--json', '--threads', '1']

async function serve(): Promise<{ url: string; child: ChildProcess }> {
  const child = spawn(process.execPath, [command, 'serve', tiny, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [line] = (await once(child.stdout!, 'data')) as [Buffer]
  return { url: JSON.parse(line.toString()).url, child }
}

/** More requests than a pipe holds lines of. */
async function ask(url: string): Promise<void> {
  for (let i = 0; i < 400; i++) expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: 'ok' })
}

test('a reader that stalls holds up neither requests nor the end', async () => {
  const { url, child } = await serve()
  await ask(url)
  child.kill('SIGTERM')
  expect(await once(child, 'exit')).toEqual([0, null])
}, 60_000)

test('a reader that goes away does not end the server', async () => {
  const { url, child } = await serve()
  child.stderr!.destroy()
  await ask(url)
  child.kill('SIGTERM')
  expect(await once(child, 'exit')).toEqual([0, null])
}, 60_000)
