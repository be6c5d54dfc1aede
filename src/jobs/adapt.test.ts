import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { tinyModel } from '../checkpoint/names.ts'
import { taskRows } from '../tasks/index.ts'
import { adapt, adaptRecipe } from './adapt.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-adapt-'))
})
afterAll(() => rm(folder, { recursive: true }))

const given = { model: 'm', output_dir: 'o', data: { train_path: ['a.jsonl'], max_seq_len: 64 } }

describe('adaptRecipe', () => {
  it('makes an autoregressive model hybrid, and keeps what another is', () => {
    const hybrid = adaptRecipe(given, { model_type: 'llama' }, 100_000)
    expect(hybrid).toMatchObject({ objective: 'hybrid', diffusion: { block_size: 8 } })
    // 195 steps of 512 tokens: a checkpoint each 16.
    expect(hybrid.train).toMatchObject({
      total_tokens: 100_000,
      save_steps: 16,
      eval_steps: 16,
      early_stop: 3,
      lr: 3e-4,
    })
    const blocks = { model_type: 'llama', mask_token_id: 3, block_size: 16 }
    expect(adaptRecipe(given, blocks)).toMatchObject({ objective: 'diffusion', diffusion: { block_size: 16 } })
    expect(adaptRecipe({ ...given, train: { lr: 1, early_stop: 0 } }, blocks).train).toMatchObject({
      lr: 1,
      early_stop: 0,
    })
  })
})

describe('adapt', () => {
  it('makes a model of files within a budget, measured before and after, and goes on where it was stopped', async () => {
    const rows = [...taskRows({ seed: 3, count: 90 })].map(({ prompt, completion }) => ({ prompt, completion }))
    const data = join(folder, 'data.jsonl')
    const sets = join(folder, 'evaluation.jsonl')
    const lines = (from: number, to: number) =>
      rows
        .slice(from, to)
        .map((row) => `${JSON.stringify(row)}\n`)
        .join('')
    await writeFile(data, lines(0, 80))
    await writeFile(sets, lines(76, 90))
    const output = join(folder, 'out')
    const options = {
      recipe: {
        ...{ model: tinyModel, output_dir: output, threads: 1 },
        data: {
          train_path: [data],
          max_seq_len: 64,
          validation_fraction: 0.2,
          validation_tokens: 100,
          template: 'none',
        },
        train: { global_batch_size: 2 },
        eval: { prompts: 0 },
      },
      ...{ evaluationSets: [sets], general: [join(tinyModel, 'data', 'speeches.test.jsonl')], budget: 1 },
    }
    const missing = { recipe: { ...options.recipe, data: { train_path: ['missing.jsonl'] } } }
    await expect(adapt({ ...options, ...missing })).rejects.toThrow(/missing\.jsonl/)
    expect(existsSync(output)).toBe(false)
    const stop = new AbortController()
    const stopped = await adapt({
      ...options,
      signal: stop.signal,
      onEvent: (event) => event.type === 'checkpoint' && stop.abort(),
    })
    expect(stopped.status).toBe('interrupted')
    await expect(adapt(options)).rejects.toThrow(/holds an adaptation already; go on with --resume/)
    const result = await adapt({ ...options, resume: true })
    expect(result).toMatchObject({ status: 'completed', objective: 'hybrid', plannedTokens: stopped.plannedTokens })
    expect(result.data.rows).toMatchObject({ read: 80, leaks: 4 })
    expect(result.plannedTokens).toBe(Math.max(128, Math.floor(0.8 * result.measuredSpeed!)))
    expect((await load(result.model!)).model.config.causal_context).toBe(true)
    for (const { before, after } of [result.own!, result.general!]) {
      expect(before.tokens).toBe(after.tokens)
      expect(Number.isFinite(after.bitsPerByte)).toBe(true)
    }
    const card = await readFile(join(result.model!, 'README.md'), 'utf8')
    expect(card).toContain('bits per byte, general text')
    expect(card).toContain('4 rows of evaluation sets left out')
  })
})
