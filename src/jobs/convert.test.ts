import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { recorded } from '../../test/recorded.ts'
import { publishable } from '../account/provenance.ts'
import { saveModelAdapter } from '../checkpoint/adapter.ts'
import { load, loadForInference } from '../checkpoint/load.ts'
import { floatValues } from '../quant/layout.ts'
import { taskRows } from '../tasks/index.ts'
import { blockSchedule, convert, convertInFolder, decodingConfig } from './convert.ts'
import { quantize } from './quantize.ts'
import { tinyModel } from './quickstart.ts'
import { parseRecipe, type RecipeInput, recipeSettings } from './recipe.ts'
import { runCost } from './run-cost.ts'

const recipe = (change: Partial<RecipeInput>) =>
  parseRecipe({
    model: 'm',
    output_dir: 'o',
    ...change,
    data: { train_path: ['a'], max_seq_len: 128 },
    train: { total_tokens: 1000 },
  })

describe('blockSchedule', () => {
  it('is warmup, stable and decay unless the recipe says otherwise', () => {
    expect(blockSchedule(recipe({ diffusion: { block_size: 32 } })).map(({ blockSize }) => blockSize)).toEqual([
      1, 4, 32, 64, 128, 64, 32,
    ])
    expect(blockSchedule(recipe({ diffusion: { block_size: 8, schedule: 'constant' } }))).toEqual([
      { blockSize: 8, tokens: 1000 },
    ])
    expect(blockSchedule(recipe({ diffusion: { block_size: 8, schedule: ['1:10%', 'L:40%', '8:50%'] } }))).toEqual([
      { blockSize: 1, tokens: 100 },
      { blockSize: 128, tokens: 400 },
      { blockSize: 8, tokens: 500 },
    ])
    expect(blockSchedule(recipe({ objective: 'ar' }))).toEqual([{ blockSize: 1, tokens: 1000 }])
  })

  it('ends at the block size of decoding', () => {
    const wrong = recipe({ diffusion: { block_size: 8, schedule: ['1:10%', '4:90%'] } })
    expect(() => blockSchedule(wrong)).toThrow('diffusion.schedule: ends with block size 4, but the block size is 8')
  })
})

describe('decodingConfig', () => {
  it.each([
    [{}, true, {}],
    [{}, false, { same_token_labels: false }],
    [{ same_token_labels: false }, false, { same_token_labels: false }],
    [{ same_token_labels: false, block_size: 4 }, true, { same_token_labels: true }],
    [{ causal_context: true }, true, {}],
  ])('of %j with same_token_labels %s', (config, same_token_labels, expected) => {
    const diffusion = { block_size: 8, same_token_labels }
    expect(decodingConfig({ model_type: 'llama', ...config }, { objective: 'diffusion', diffusion })).toEqual({
      model_type: 'llama',
      block_size: 8,
      ...expected,
    })
  })
})

describe('publishable', () => {
  it('keeps the last part of absolute paths and leaves the rest', () => {
    expect(publishable('unmask convert -r /home/me/a.yaml --train-path=/data/x.jsonl,b/c.jsonl')).toBe(
      'unmask convert -r a.yaml --train-path=x.jsonl,b/c.jsonl',
    )
    expect(publishable('runs/tiny')).toBe('runs/tiny')
    expect(publishable('C:\\Users\\me\\a.yaml')).toBe('a.yaml')
  })
})

describe('the settings', () => {
  it('that are offered are all read', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-convert-'))
    try {
      const rows = [...taskRows({ seed: 3, count: 60 })].map(({ prompt, completion }) => ({ prompt, completion }))
      const data = join(folder, 'data.jsonl')
      await writeFile(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
      const { recipe, read } = recorded(
        parseRecipe({
          model: tinyModel,
          output_dir: folder,
          threads: 1,
          data: {
            train_path: [data],
            template: 'none',
            max_seq_len: 64,
            validation_tokens: 100,
            validation_fraction: 0.2,
          },
          train: { total_tokens: 300, global_batch_size: 2 },
          diffusion: { block_size: 8, confidence_beta: 1 },
          lora: { rank: 2 },
          decode: { max_new_tokens: 4, threshold: 0.8 },
          eval: { prompts: 1, thresholds: [] },
        }),
      )
      const { status, evaluation, model, adapter, checkpoint } = await convertInFolder(recipe, {})
      expect(status).toBe('completed')
      // The low-rank weights with their base are the model.
      const [whole, small] = [await load(model!), await load(adapter!)]
      expect(small.parameters).toEqual(whole.parameters)
      expect(small.model.config).toMatchObject({ mask_token_id: 259, block_size: 8 })
      // The recipe's way of decoding is the model's, as far as it does not belong to a request.
      for (const { generationConfig } of [whole, small]) expect(generationConfig).toMatchObject({ threshold: 0.8 })
      expect(whole.generationConfig?.max_new_tokens).not.toBe(4)
      expect(evaluation!.stderr).toBeGreaterThan(0)
      // Both say what they came from and cost.
      for (const path of [model!, adapter!]) {
        const { record, total } = await runCost(path, { watts: 10 })
        expect(record).toMatchObject({ method: 'convert', base: { name: 'tiny', license: 'apache-2.0' } })
        expect(record.data.map(({ name }) => name)).toEqual(['data.jsonl'])
        expect(record.scores.length).toBeGreaterThan(0)
        expect(total.tokens).toBeGreaterThanOrEqual(300)
        expect(total.flops).toBeGreaterThan(0)
        if (total.energy === 'estimated') expect(total.joules).toBeCloseTo(10 * total.seconds)
        expect(await readFile(join(path, 'README.md'), 'utf8')).toContain('## Known limits')
      }
      expect((await runCost(checkpoint!)).total.tokens).toBe((await runCost(folder)).total.tokens)
      const offered = recipeSettings().map(({ path }) => path)
      // The names of columns are taken together, the rows of tasks where there are tasks, the others where PyTorch trains.
      const elsewhere = ['eval.task_rows', 'dtype', 'processes', 'expert_parallel']
      const others = (path: string) => !path.startsWith('data.columns.') && !elsewhere.includes(path)
      expect(offered.filter((path) => others(path) && !read.has(path))).toEqual([])
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})

describe('low-rank weights', () => {
  it.each([false, true])('are trained on a base in 4 bits (DoRA: %s)', async (dora) => {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-convert-'))
    try {
      const rows = [...taskRows({ seed: 3, count: 60 })].map(({ prompt, completion }) => ({ prompt, completion }))
      const data = join(folder, 'data.jsonl')
      await writeFile(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
      const base = join(folder, 'base')
      await quantize({ model: tinyModel, out: base, bits: 4 })
      const recipe = parseRecipe({
        model: base,
        output_dir: join(folder, 'run'),
        objective: 'hybrid',
        threads: 1,
        data: {
          train_path: [data],
          template: 'none',
          max_seq_len: 64,
          validation_tokens: 100,
          validation_fraction: 0.2,
        },
        train: { total_tokens: 600, global_batch_size: 2, lr: 0.01 },
        diffusion: { block_size: 4 },
        lora: { rank: 2, dora },
        decode: { max_new_tokens: 4 },
        eval: { prompts: 1, thresholds: [] },
      })
      const { model, adapter, evaluation, comparison } = await convert({ recipe })
      expect(evaluation!.nll).toBeGreaterThan(0)
      expect(comparison).toBeDefined()
      const [whole, small] = [await load(model!), await loadForInference(adapter!)]
      expect(whole.model.config).not.toHaveProperty('quantization_config')
      for (const [name, { data }] of whole.parameters) {
        expect(await floatValues(small.parameters.get(name)!), name).toEqual(data)
      }
      // What the adapter leaves as it is stays quantised.
      const embedding = small.parameters.get(small.model.embeddingName)!
      expect('format' in embedding && embedding.format).toMatchObject({ bits: 4 })
      const json = JSON.parse(await readFile(join(adapter!, 'adapter_config.json'), 'utf8'))
      expect(json).toMatchObject({ use_dora: dora, r: 2, base_model_name_or_path: base })
      const rest = { ...recipe, output_dir: join(folder, 'whole'), lora: { rank: 0 } }
      await expect(convert({ recipe: rest })).rejects.toThrow('is quantised; train low-rank weights on it (lora.rank)')
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})

describe('refused before training are', () => {
  const run = async (change: Partial<RecipeInput>) => {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-convert-'))
    try {
      const rows = [...taskRows({ seed: 3, count: 60 })].map(({ prompt, completion }) => ({ prompt, completion }))
      const data = join(folder, 'data.jsonl')
      await writeFile(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
      const input = { model: tinyModel, output_dir: join(folder, 'run'), ...change }
      const settings = { data: { train_path: [data], max_seq_len: 64 }, train: { total_tokens: 300 } }
      await convertInFolder(parseRecipe({ ...input, ...settings }), {})
    } finally {
      await rm(folder, { recursive: true })
    }
  }
  it('a way of decoding that the model will not have', async () => {
    await expect(run({ decode: { row_cost: 0.1 } })).rejects.toThrow(
      'decode.row_cost: belongs to mode speculative, which this model does not have (diffusion, ar)',
    )
  })

  it('low-rank weights for projections that the model does not have', async () => {
    const lora = { rank: 2, target_modules: ['nope_proj'] }
    await expect(run({ lora })).rejects.toThrow(
      'lora.target_modules: the model (llama) has no projection called nope_proj',
    )
  })
  it('low-rank weights of a rank above the width of a projection', async () => {
    await expect(run({ lora: { rank: 4096 } })).rejects.toThrow(
      /^lora\.rank: 4096 is above the width of model\.layers\.0/,
    )
  })
  it('low-rank weights for an adapter', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-adapter-'))
    const config = { rank: 1, alpha: 1, targetModules: ['q_proj'], dora: false, base: tinyModel, modelConfig: {} }
    await saveModelAdapter(folder, { config, parameters: new Map() })
    await expect(run({ model: folder, lora: { rank: 2 } })).rejects.toThrow(/lora\.rank: .* is an adapter itself/)
    await rm(folder, { recursive: true })
  })
})
