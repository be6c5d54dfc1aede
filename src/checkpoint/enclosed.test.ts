import { cp, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { openCheckpoint } from './index.ts'

const tiny = fileURLToPath(new URL('../../models/tiny', import.meta.url))
let work: string
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'unmask-links-'))
})
afterAll(() => rm(work, { recursive: true }))

/** A copy of the embedded model, without its data. */
async function copy(path: string): Promise<string> {
  await cp(tiny, path, { recursive: true, filter: (from) => !/[\\/]data$/.test(from) })
  return path
}
const readAll = async (path: string) => {
  const checkpoint = await openCheckpoint(path)
  try {
    return await checkpoint.tokenizerFiles()
  } finally {
    await checkpoint.close()
  }
}

describe('files of a model that are links', () => {
  test.each([
    'config.json',
    'generation_config.json',
    'tokenizer.json',
    'chat_template.jinja',
    'special_tokens_map.json',
  ])('out of its folder are refused: %s', async (name) => {
    const folder = await copy(join(work, `out-${name}`))
    const secret = join(work, `secret-${name}`)
    await writeFile(secret, '{"model_type": "llama"}')
    await rm(join(folder, name), { force: true })
    await symlink(secret, join(folder, name))
    await expect(readAll(folder)).rejects.toThrow(UserError)
    await expect(readAll(folder)).rejects.toThrow(`${name}: is a link to a file outside of the model's folder`)
  })

  test('within it, to it, and into the blobs of a Hub cache are followed', async () => {
    const folder = await copy(join(work, 'within'))
    await mkdir(join(folder, 'files'))
    await rename(join(folder, 'tokenizer.json'), join(folder, 'files', 'tokenizer.json'))
    await symlink(join('files', 'tokenizer.json'), join(folder, 'tokenizer.json'))
    expect(await readAll(folder)).toHaveProperty('tokenizer.json')
    await symlink(folder, join(work, 'name'))
    expect(await readAll(join(work, 'name'))).toHaveProperty('tokenizer.json')

    const snapshot = join(work, 'models--a--b', 'snapshots', '0123')
    await copy(snapshot)
    await mkdir(join(work, 'models--a--b', 'blobs'))
    await rename(join(snapshot, 'tokenizer.json'), join(work, 'models--a--b', 'blobs', 'abcd'))
    await symlink(join('..', '..', 'blobs', 'abcd'), join(snapshot, 'tokenizer.json'))
    expect(await readAll(snapshot)).toHaveProperty('tokenizer.json')
  })
})
