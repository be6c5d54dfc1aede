// An accelerator from data to decoding, through the library, with the embedded model: resume, files, equal answers.
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { recorded } from '../../test/recorded.ts'
import { taskRows } from '../tasks/index.ts'
import { accelerate, accelerateInFolder } from './accelerate.ts'
import { evaluate } from './evaluate.ts'
import { tinyModel } from './quickstart.ts'
import {
  type AcceleratorRecipeInput,
  acceleratorSchema,
  parseAcceleratorRecipe,
  parseSections,
  recipeSettings,
} from './recipe.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-accelerate-'))
  const rows = [...taskRows({ seed: 3, count: 120 })].map(({ prompt, completion }) => ({ prompt, completion }))
  await writeFile(join(folder, 'data.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
})
afterAll(() => rm(folder, { recursive: true }))

const recipe = (run: string): AcceleratorRecipeInput => ({
  model: tinyModel,
  output_dir: join(folder, run),
  threads: 1,
  data: {
    train_path: [join(folder, 'data.jsonl')],
    template: 'none',
    max_seq_len: 64,
    validation_tokens: 300,
    validation_fraction: 0.1,
  },
  train: {
    total_tokens: 5000,
    micro_batch_size: 4,
    global_batch_size: 4,
    lr: 3e-3,
    save_steps: 4,
    eval_steps: 10,
    weight_decay: 0,
  },
  adapter: { rank: 4, block_size: 4, self_generate: 800 },
  decode: { max_new_tokens: 16 },
  eval: { prompts: 4 },
})

describe('the settings', () => {
  it('that are offered are all read, when answers are written and when they are given', async () => {
    const read = new Set<string>()
    for (const selfGenerate of [400, undefined]) {
      const given = recipe(`settings-${selfGenerate}`)
      const train = { ...given.train, total_tokens: 600 }
      const parsed = parseAcceleratorRecipe({
        ...given,
        train,
        adapter: { ...given.adapter, self_generate: selfGenerate },
      })
      const watched = recorded(parsed)
      await mkdir(parsed.output_dir)
      await accelerateInFolder(watched.recipe, {})
      for (const path of watched.read) read.add(path)
    }
    const offered = recipeSettings(acceleratorSchema).map(({ path }) => path)
    // The names of columns are taken together.
    for (const path of offered) if (path.startsWith('data.columns.')) read.add(path)
    expect(offered.filter((path) => !read.has(path))).toEqual([])
  })
})

describe('accelerate', () => {
  it('trains an adapter that changes no answer, and continues an interrupted run bit for bit', async () => {
    const whole = await accelerate({ recipe: recipe('whole') })
    expect(whole.status).toBe('completed')
    expect(whole.decoding).toMatchObject({ prompts: 4, equal: 4 })
    const controller = new AbortController()
    const first = await accelerate({
      recipe: recipe('part'),
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === 'step' && event.step === 7) controller.abort()
      },
    })
    expect(first.status).toBe('interrupted')

    const { train, data, ...same } = recipe('part')
    const other = { ...train, lr: 1, global_batch_size: 8, total_tokens: 6000, save_steps: 9 }
    const loaded: string[] = []
    await expect(
      accelerate({
        recipe: { ...same, data: { ...data, max_seq_len: 32 }, train: other },
        resume: true,
        fetch: async (model) => void loaded.push(model),
      }),
    ).rejects.toThrow(
      [
        'data.max_seq_len: 32, but the run was started with 64',
        'train.global_batch_size: 8, but the run was started with 4',
        'train.lr: 1, but the run was started with 0.003',
        'train.total_tokens: 6000, but the run was started with 5000',
        `${join(folder, 'part')}: resume with the same settings, or start a new run in another folder`,
      ].join('\n'),
    )
    expect(loaded).toEqual([])
    const second = await accelerate({ recipe: recipe('part'), resume: true })
    expect(second.status).toBe('completed')
    const weights = (path: string | undefined) => readFile(join(path as string, 'adapter_model.safetensors'))
    expect(await weights(second.adapter)).toEqual(await weights(whole.adapter))

    const { comparison, mode } = await evaluate({
      ...{ model: tinyModel, adapter: whole.adapter as string, template: 'none', threads: 1 },
      ...parseSections({ eval: { tasks: ['reverse', 'add'], task_rows: 5 }, decode: { max_new_tokens: 16 } }),
    })
    expect(mode).toBe('speculative')
    expect(comparison?.equal).toBe(10)
    expect(comparison?.diffusion?.tokensPerForward).toBeGreaterThan(1)
  })

  it('continues answers that a killed run left', async () => {
    const run = join(folder, 'killed')
    const file = join(run, 'self-generated.jsonl')
    await cp(join(folder, 'whole', 'self-generated.jsonl'), file)
    const text = await readFile(file, 'utf8')
    await writeFile(file, text.slice(0, text.indexOf('\n', text.length / 2) + 9))
    const controller = new AbortController()
    await accelerate({
      recipe: recipe('killed'),
      signal: controller.signal,
      onEvent: ({ type }) => type === 'start' && controller.abort(),
    })
    expect(await readFile(file, 'utf8')).toBe(text)
  })

  it('refuses a diffusion model and rows longer than the model', async () => {
    const long = recipe('long')
    await expect(accelerate({ recipe: { ...long, data: { ...long.data, max_seq_len: 4096 } } })).rejects.toThrow(
      'more than the 2048 positions',
    )
  })
})
