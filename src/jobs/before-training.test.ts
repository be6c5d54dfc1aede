// Problems of data and of resumed runs are found before a model is fetched or loaded: the models here are nowhere.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { accelerate } from './accelerate.ts'
import { checkData } from './before-training.ts'
import { convert } from './convert.ts'
import { evaluate } from './evaluate.ts'
import { quantize } from './quantize.ts'
import { parseRecipe, parseSections, type RecipeInput } from './recipe.ts'
import { tune } from './tune.ts'

let folder: string
let rows: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-before-training-'))
  rows = await write('rows.jsonl', '{"text":"a"}\n{"text":"b"}\n{"text":"c"}\n')
})
afterAll(() => rm(folder, { recursive: true }))

async function write(name: string, text: string): Promise<string> {
  await writeFile(join(folder, name), text)
  return join(folder, name)
}

const recipe = (data: Partial<RecipeInput['data']>) => ({
  model: join(folder, 'nowhere'),
  output_dir: join(folder, 'run'),
  data: { train_path: rows, ...data },
})

describe('data', () => {
  it.each<
    [string, (file: (name: string, text: string) => Promise<string>) => Promise<Partial<RecipeInput['data']>>, RegExp]
  >([
    ['an empty file', async (file) => ({ train_path: await file('a.jsonl', '') }), /there are no rows in the file/],
    [
      'other columns',
      async (file) => ({ train_path: await file('b.jsonl', '{"q":1}') }),
      /the row has q.*--columns-text/,
    ],
    ['a file that is not there', async () => ({ train_path: 'nowhere.jsonl' }), /nowhere.jsonl: no such file/],
    ['empty held-out data', async (file) => ({ validation_path: await file('c.txt', '') }), /c.txt: there are no rows/],
    [
      'one document',
      async (file) => ({ train_path: await file('d.txt', 'x') }),
      /only one document.*--validation-path/,
    ],
    [
      'no share to hold out',
      async () => ({ validation_fraction: 0 }),
      /^data.validation_fraction: 0 holds nothing out/,
    ],
  ])('%s is found before the model is fetched', async (_, data, message) => {
    const fetched: string[] = []
    const fetch = async (model: string) => void fetched.push(model)
    const wrong = recipe(await data(write))
    for (const run of [convert, accelerate]) await expect(run({ recipe: wrong, fetch })).rejects.toThrow(message)
    expect(fetched).toEqual([])
    expect(await readdir(folder)).not.toContain('run')
  })

  it('that others measure with are read before the model is loaded', async () => {
    const [model, out, empty] = [join(folder, 'nowhere'), join(folder, 'out'), await write('e.jsonl', '')]
    const { decode, eval: settings } = parseSections({})
    for (const run of [
      () => evaluate({ model, data: [empty], decode, eval: settings }),
      () => tune({ model, data: [empty], maxNewTokens: 4, eval: settings }),
      () => quantize({ model, out, method: 'gptq', calibration: [empty] }),
    ])
      await expect(run()).rejects.toThrow(/e.jsonl: there are no rows/)
  })

  it('are split so that of few documents some are held out', async () => {
    const share = (data: Partial<RecipeInput['data']>) => checkData(parseRecipe(recipe(data)).data)
    expect(await share({ validation_fraction: 0.001 })).toBeGreaterThan(0.001)
    expect(await share({ validation_path: rows })).toBe(0)
  })

  it('are well: then the model is fetched, and loaded', async () => {
    const fetched: string[] = []
    const run = convert({ recipe: recipe({}), fetch: async (model) => void fetched.push(model) })
    await expect(run).rejects.toThrow(/nowhere: no such file or folder/)
    expect(fetched).toEqual([join(folder, 'nowhere')])
  })
})
