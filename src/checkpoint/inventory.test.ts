import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { pull } from './hub.ts'
import { findModel, listModels, removeModel } from './inventory.ts'
import { lockFolder } from './lock.ts'
import { tinyModel } from './names.ts'

let folder: string
let before: string
beforeEach(async () => {
  before = process.cwd()
  folder = await mkdtemp(join(tmpdir(), 'unmask-list-'))
  process.chdir(folder)
  vi.stubEnv('UNMASK_CACHE', join(folder, 'cache'))
})
afterEach(async () => {
  vi.unstubAllEnvs()
  process.chdir(before)
  await rm(folder, { recursive: true })
})

async function write(path: string, text: string, modified?: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
  if (modified !== undefined) await utimes(path, modified, modified)
}

const commit = 'a'.repeat(40)

async function fill(): Promise<void> {
  await write(`cache/hub/owner--model/${commit}/model.safetensors`, '12345')
  await write('cache/hub/owner--model/refs/main', commit)
  await write('cache/hub/owner--model/refs/refs%2Fpr%2F1', commit)
  await write('cache/pypi/a-model-1.10/m.gguf', '123')
  await write('cache/pypi/a-model-1.9/m.gguf', '123')
  await write('cache/pypi/.downloads/x.whl/x.whl.partial', '')
  for (const [run, time] of [
    ['old', 1000],
    ['deep/new', 2000],
  ] as const) {
    await write(`runs/${run}/recipe.yaml`, '')
    await write(`runs/${run}/model/config.json`, '{}', time)
  }
  await write('runs/unfinished/recipe.yaml', '')
}

it('lists what is here, by the names that commands take', async () => {
  expect((await listModels()).map(({ name }) => name)).toEqual(['tiny'])
  await fill()
  const models = await listModels()
  expect(models.map(({ name, kind }) => [name, kind])).toEqual([
    ['tiny', 'package'],
    ['owner/model@main', 'hub'],
    ['owner/model@refs/pr/1', 'hub'],
    ['pypi:a-model==1.10', 'pypi'],
    ['pypi:a-model==1.9', 'pypi'],
    ['runs/deep/new/model', 'run'],
    ['runs/old/model', 'run'],
  ])
  for (const { bytes } of models) expect(bytes).toBeGreaterThan(2)
})

it('short names stand for models, a folder of the same name comes first', async () => {
  expect(await pull('tiny')).toEqual({ path: tinyModel })
  await expect(pull('last')).rejects.toThrow('there is no finished run with a model in runs/ here')
  await fill()
  expect(await pull('last')).toEqual({ path: join('runs', 'deep', 'new', 'model') })
  await mkdir('tiny')
  expect(await pull('tiny')).toEqual({ path: 'tiny' })
})

it('removes what it lists and nothing else', async () => {
  await fill()
  for (const name of ['owner/model', 'pypi:a-model==1.9', 'runs/old', 'runs/deep/new/model/'])
    await removeModel(await findModel(name))
  expect((await listModels()).map(({ name }) => name)).toEqual(['tiny', 'pypi:a-model==1.10'])
  for (const name of ['runs/unfinished', '.', '/', 'cache', '', 'runs'])
    await expect(findModel(name)).rejects.toThrow('is not among the models')
  await expect(removeModel(await findModel('tiny'))).rejects.toThrow('comes with unmask')
})

it('does not remove a run that is in use', async () => {
  await fill()
  const unlock = await lockFolder('runs/old')
  await expect(removeModel(await findModel('runs/old'))).rejects.toThrow('in use by process')
  await unlock()
})
