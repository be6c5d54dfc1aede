// What may be written, in a real folder.
import { link, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { UserError } from '../core/types.ts'
import { claimOutput } from './output.ts'

const folder = await mkdtemp(join(tmpdir(), 'unmask-output-'))
afterAll(() => rm(folder, { recursive: true }))
const at = (...names: string[]) => join(folder, ...names)

await mkdir(at('model'))
await writeFile(at('model', 'config.json'), '{}')
await mkdir(at('cache'))
await writeFile(at('cache', 'blob'), 'weights')
await mkdir(at('snapshot'))
await symlink(at('cache', 'blob'), at('snapshot', 'model.safetensors'))
await symlink(at('model'), at('link'))
await symlink(at('nowhere'), at('dangling'))
await mkdir(at('empty'))
await mkdir(at('other'))
await writeFile(at('other', 'notes.md'), 'mine')
await writeFile(at('rows.jsonl'), '')
await link(at('rows.jsonl'), at('hard.jsonl'))

const claim = (path: string, inputs: string[], force?: boolean) => claimOutput(path, { inputs, force })

describe('an output', () => {
  it.each([
    ['a new name', at('new')],
    ['a new name in new folders', at('new', 'deep', 'er')],
    ['an empty folder', at('empty')],
    ['a name that begins like an input', at('model-4bit')],
  ])('may be %s', async (_, path) => {
    await claim(path, [at('model'), 'organisation/on-the-hub', 'pypi:package==1'])
  })

  it.each([
    ['a file', at('rows.jsonl')],
    ['a folder that holds something', at('other')],
    ['a link that leads nowhere', at('dangling')],
  ])('is not %s, except by force', async (_, path) => {
    await expect(claim(path, [at('model')])).rejects.toThrow(/exists already; .*--force/)
    await claim(path, [at('model')], true)
  })

  it.each([
    ['itself', at('model'), at('model'), 'is an input'],
    ['itself by another name', `${at('model')}/../model/`, at('model'), 'is an input'],
    ['itself through a link', at('link'), at('model'), 'is an input'],
    ['itself, read through a link', at('model'), at('link'), 'is an input'],
    ['the same file by another name', at('hard.jsonl'), at('rows.jsonl'), 'is an input'],
    ['inside', at('model', 'new', 'copy'), at('model'), 'lies in an input'],
    ['inside, through a link', at('link', 'copy'), at('model'), 'lies in an input'],
    ['around', folder, at('model'), 'holds an input'],
    ['around a file', at('model'), at('model', 'config.json'), 'holds an input'],
    ['around what a link in it leads to', at('cache'), at('snapshot'), 'holds an input'],
    ['what a link in it leads to', at('cache', 'blob'), at('snapshot'), 'is an input'],
  ])('is never the input: %s', async (_, path, input, message) => {
    for (const force of [false, true]) {
      const error = await claim(path, ['organisation/model', input], force).catch((error: unknown) => error)
      expect(error).toBeInstanceOf(UserError)
      expect((error as Error).message).toContain(message)
    }
  })
})
