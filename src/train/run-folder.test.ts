import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { UserError } from '../core/types.ts'
import { withRunFolder, writeRunRecipe } from './run-folder.ts'

let parent: string
let folder: string
beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'unmask-run-'))
  folder = join(parent, 'run')
})
afterEach(() => rm(parent, { recursive: true }))

const nothing = async () => undefined

async function aRun(): Promise<void> {
  await mkdir(join(folder, 'checkpoints', 'step-0000001'), { recursive: true })
  await writeRunRecipe(folder, 'model: a\n')
  await writeFile(join(folder, 'notes.txt'), 'mine')
}

describe('a run folder', () => {
  it('is locked while it is used', async () => {
    await withRunFolder(folder, {}, async () => {
      await expect(withRunFolder(folder, {}, nothing)).rejects.toThrow('in use by process')
    })
    await withRunFolder(folder, {}, nothing)
  })

  it('is removed where nothing was written, but not if it was there', async () => {
    await expect(
      withRunFolder(folder, {}, async () => {
        throw new UserError('no such model')
      }),
    ).rejects.toThrow('no such model')
    expect(await readdir(parent)).toEqual([])
    await mkdir(folder)
    await withRunFolder(folder, {}, nothing)
    expect(await readdir(folder)).toEqual([])
  })

  it('is resumed only where it holds a run', async () => {
    await expect(withRunFolder(folder, { resume: true }, nothing)).rejects.toThrow(/no run to resume: no such folder/)
    await mkdir(folder)
    await expect(withRunFolder(folder, { resume: true }, nothing)).rejects.toThrow(/it has no recipe.yaml/)
    expect(await readdir(folder)).toEqual([])
    await aRun()
    await withRunFolder(folder, { resume: true }, nothing)
  })

  it('with a run is begun anew on request, and other files stay', async () => {
    await aRun()
    await expect(withRunFolder(folder, {}, nothing)).rejects.toThrow(/holds a run already; resume it with --resume/)
    await withRunFolder(folder, { force: true }, nothing)
    expect(await readdir(folder)).toEqual(['notes.txt'])
  })

  it('whose run saved nothing is begun anew', async () => {
    await withRunFolder(folder, {}, () => writeRunRecipe(folder, 'model: a\n'))
    await withRunFolder(folder, {}, () => writeRunRecipe(folder, 'model: b\n'))
    expect(await readFile(join(folder, 'recipe.yaml'), 'utf8')).toMatch(/^# Written by unmask.*\nmodel: b\n$/)
  })

  it.each([
    ['recipe.yaml', 'the recipe of a user'],
    ['model', undefined],
    ['adapter', undefined],
    ['report', undefined],
  ])('with a %s of other origin is left alone, forced or not', async (name, text) => {
    await mkdir(folder)
    if (text === undefined) await mkdir(join(folder, name))
    else await writeFile(join(folder, name), text)
    for (const force of [false, true])
      await expect(withRunFolder(folder, { force }, nothing)).rejects.toThrow(
        `holds ${name}, which this run would replace`,
      )
    expect(await readdir(folder)).toEqual([name])
  })
})
