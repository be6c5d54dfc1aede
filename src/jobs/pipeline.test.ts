import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { packaged, tinyModel } from '../checkpoint/names.ts'
import { taskRows } from '../tasks/index.ts'
import { pipelineStates, runPipeline } from './pipeline.ts'
import { parsePipeline } from './pipeline-recipe.ts'
import { stageNames } from './pipeline-stages.ts'
import { runCost } from './run-cost.ts'

let folder: string
let data: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-pipeline-'))
  data = join(folder, 'data.jsonl')
  const rows = [...taskRows({ seed: 3, count: 40 })].map(({ prompt, completion }) => ({ prompt, completion }))
  await writeFile(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
})
afterAll(() => rm(folder, { recursive: true }))

const recipe = (stages: object[], change: object = {}) => ({
  model: tinyModel,
  output_dir: join(folder, 'run'),
  threads: 1,
  seed: 5,
  data: { train_path: [data], validation_path: [data], max_seq_len: 64, template: 'none', validation_tokens: 100 },
  train: { total_tokens: 300, global_batch_size: 2, save_steps: 0, eval_steps: 0 },
  decode: { max_new_tokens: 4 },
  eval: { tasks: ['add'], task_rows: 1, thresholds: [] },
  stages,
  ...change,
})

const convert = { convert: { diffusion: { block_size: 8, schedule: 'constant' } } }

describe('parsePipeline', () => {
  it('fills in what stages share, and what a stage says wins', async () => {
    const plan = await parsePipeline(
      recipe([convert, { sft: { train: { lr: 0.5, seed: 7 } } }, { eval: {} }, { eval: {} }]),
    )
    expect(plan.stages.map(({ id, from }) => [id, from])).toEqual([
      ['convert', undefined],
      ['sft', 'convert'],
      ['eval', 'sft'],
      ['eval-2', 'sft'],
    ])
    expect(plan.stages[0]!.settings).toMatchObject({
      train: { seed: 5, total_tokens: 300 },
      diffusion: { block_size: 8 },
    })
    // The fine-tuning follows the model that the conversion will make.
    expect(plan.stages[1]!.settings).toMatchObject({
      ...{ objective: 'diffusion', train: { lr: 0.5, seed: 7, total_tokens: 300 } },
      diffusion: { block_size: 8, noise_range_high: 0.8 },
    })
    expect(plan.stages[2]!.settings).toMatchObject({ eval: { tasks: ['add'] }, decode: { max_new_tokens: 4 } })
  })

  it('reads the recipe that comes with unmask', async () => {
    const plan = await parsePipeline(parse(await readFile(packaged('recipes', 'tiny-pipeline.yaml'), 'utf8')))
    expect(plan.stages.map(({ id }) => id)).toEqual(['convert', 'sft', 'cap', 'quantize', 'eval'])
    expect(plan.stages[2]!.settings).toMatchObject({ diffusion: { confidence_beta: 2 } })
  })

  const lora = { convert: { ...convert.convert, lora: { rank: 2 } } }
  it.each([
    [
      [convert, { quantize: {} }, { sft: {} }],
      /^stages\.2\.sft\.lora\.rank: 0 trains all weights, but stages\.1\.quantize/,
    ],
    [[convert, { quantize: {} }, { quantize: {} }], /^stages\.2\.quantize: stages\.1\.quantize has rounded/],
    [[{ cap: {} }], /^stages\.0\.cap\.objective: .*autoregressive: convert it first$/],
    [
      [convert, { cap: { diffusion: { confidence_beta: 0 } } }],
      /^stages\.1\.cap\.diffusion\.confidence_beta: 0 makes this sft/,
    ],
    [
      [convert, { sft: { objective: 'hybrid' } }],
      /^stages\.1\.sft\.objective: hybrid, but - is a model of objective diffusion/,
    ],
    [[convert, { sft: { diffusion: { block_size: 7 } } }], /^stages\.1\.sft\.diffusion\.block_size: 7 does not divide/],
    [
      [{ convert: { train: { global_batch_size: 3, micro_batch_size: 2 } } }],
      /^stages\.0\.convert\.train\.global_batch_size: 3/,
    ],
    [[convert, { merge: { best: 2 } }], /^stages\.1\.merge\.best: 2 checkpoints, but train\.save_steps .* is 0/],
    [[lora, { merge: { best: 2 } }], /^stages\.1\.merge\.best: an adapter is merged alone/],
    [[convert, { merge: { bits: 4 } }], /^stages\.1\.merge\.bits: is for an adapter/],
    [[{ merge: {} }], /^stages\.0\.merge: merges what a training has left/],
    [[{ tune: {} }], /^stages\.0\.tune: the model is autoregressive/],
    [[convert, { eval: { eval: { tasks: [] } } }], /^stages\.1\.eval: nothing to measure with/],
    [
      [convert, { eval: { from: 'sft' } }],
      /^stages\.1\.eval\.from: no stage before it is called "sft"; there are convert$/,
    ],
    [[{ eval: {} }, { quantize: { from: 'eval' } }], /^stages\.1\.quantize\.from: eval makes no model$/],
    [[convert, { quantise: {} }], /^stages\.1\.quantise: there is no such stage; did you mean quantize\?/],
    [[{ ...convert, sft: {} }], /^stages\.0: expected one stage/],
    [[convert, { quantize: { bit: 4 } }], /^stages\.1\.quantize\.bit: unknown key; did you mean bits\?/],
    [[convert, { quantize: { name: 'convert' } }], /^stages\.1\.quantize\.name: another stage is called convert$/],
    [[convert, { quantize: { name: '../up' } }], /^stages\.1\.quantize\.name: expected letters/],
    [[convert, { dpo: {} }], /^stages\.1\.dpo\.data: is required$/],
    [[], /^stages: must not be empty/],
  ])('refuses %j', async (stages, message) => {
    await expect(parsePipeline(recipe(stages))).rejects.toThrow(message)
  })

  it('names a shared key where it is at fault', async () => {
    await expect(parsePipeline(recipe([convert], { train: { lr: -1 } }))).rejects.toThrow(/^train\.lr: expected/)
    await expect(parsePipeline(recipe([convert], { stage: [] }))).rejects.toThrow(
      /^stage: unknown key; did you mean stages\?$/,
    )
  })

  it('refuses a model that is neither here nor a source, and what is no model', async () => {
    const refused = (model: string, message: RegExp) =>
      expect(parsePipeline(recipe([convert], { model }))).rejects.toThrow(message)
    await refused(join(folder, 'none'), /^model: .*none: no such file or folder/)
    await refused('models/tinny', /^model: models\/tinny: no such file or folder in models\//)
    await refused(folder, /^model: .*holds no checkpoint/)
    // Whether a repository is there would have to be asked.
    expect((await parsePipeline(recipe([convert], { model: 'someone/something' }))).model).toBe('someone/something')
  })

  it('knows every stage', () => {
    expect(stageNames).toEqual(['pull', 'convert', 'sft', 'cap', 'dpo', 'merge', 'quantize', 'tune', 'eval', 'export'])
  })
})

describe('runPipeline', () => {
  it('runs its stages, skips what is done, goes on after an interruption, and replaces only when asked to', async () => {
    const stages = [convert, { sft: {} }, { quantize: { bits: 8 } }, { eval: {} }]
    const plan = await parsePipeline(recipe(stages))
    const states = async (of = plan) => (await pipelineStates(of)).map(({ id, state }) => `${id} ${state}`)
    expect(await states()).toEqual(['convert new', 'sft new', 'quantize new', 'eval new'])

    // Stopped in the middle of the second stage.
    const stop = new AbortController()
    let at = ''
    const stopped = await runPipeline(plan, {
      signal: stop.signal,
      onEvent(event) {
        if (event.type === 'stage') at = event.id
        if (at === 'sft' && event.type === 'step') stop.abort()
      },
    })
    expect(stopped.status).toBe('interrupted')
    expect(await states()).toEqual(['convert done', 'sft interrupted', 'quantize new', 'eval new'])

    const { status, rows, model } = await runPipeline(plan)
    expect(status).toBe('completed')
    expect(rows.map(({ id, state }) => `${id} ${state}`)).toEqual([
      ...['convert done', 'sft interrupted', 'quantize new', 'eval new'],
    ])
    expect(model).toBe(join(folder, 'run', 'quantize', 'model'))
    for (const { tokens, account, tokensPerForward } of rows.slice(0, 2)) {
      expect(tokens).toBeGreaterThanOrEqual(300)
      expect(account!.tokens).toBe(tokens)
      expect(tokensPerForward).toBeGreaterThan(0)
    }
    expect(rows[3]).toMatchObject({ score: expect.any(Number), tokensPerSecond: expect.any(Number) })
    // The account of the last model is that of all its steps, and its card has the score.
    const { steps, record } = await runCost(model!)
    expect(steps.map(({ method }) => method)).toEqual(['convert', 'sft', 'quantize'])
    expect(record.scores.map(({ name }) => name)).toEqual(['eval'])

    const made = await stat(join(model!, 'model.safetensors'))
    const again = await runPipeline(plan)
    expect(again.rows.every(({ state }) => state === 'done')).toBe(true)
    expect((await stat(join(model!, 'model.safetensors'))).mtimeMs).toBe(made.mtimeMs)

    // Prices change nothing; bits change the stage and what follows.
    expect(await states(await parsePipeline(recipe(stages, { cost: { watts: 1 } })))).toEqual(await states())
    const other = await parsePipeline(recipe([convert, { sft: {} }, { quantize: { bits: 4 } }, { eval: {} }]))
    expect(await states(other)).toEqual(['convert done', 'sft done', 'quantize changed', 'eval changed'])
    await expect(runPipeline(other)).rejects.toThrow(/quantize, eval were made with other settings.*--force/)
    expect((await stat(join(model!, 'model.safetensors'))).mtimeMs).toBe(made.mtimeMs)
    const forced = await runPipeline(other, { force: true })
    expect(forced.rows.map(({ state }) => state)).toEqual(['done', 'done', 'changed', 'changed'])
    expect((await stat(join(model!, 'model.safetensors'))).size).toBeLessThan(made.size)

    // Other data are another pipeline.
    await writeFile(data, await readFile(data, 'utf8').then((text) => text.slice(0, text.lastIndexOf('{'))))
    expect((await states(plan))[0]).toBe('convert changed')
  })

  it('writes into no folder of others', async () => {
    const plan = await parsePipeline(recipe([{ quantize: {} }], { output_dir: folder }))
    await runPipeline({ ...plan, outputDir: join(folder, 'fresh') })
    await writeFile(join(folder, 'quantize'), 'mine').catch(() => undefined)
    await expect(runPipeline(plan)).rejects.toThrow(/quantize/)
    expect(await readFile(join(folder, 'quantize'), 'utf8')).toBe('mine')
  })
})
