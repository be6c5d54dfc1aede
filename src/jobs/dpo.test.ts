// Preference training from end to end on the embedded model: it learns what the pairs prefer, goes on after an interruption with
// the same bits, keeps what the reference says, and leaves nothing behind where the data are wrong.
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { type DpoEvent, type DpoOptions, dpo } from './dpo.ts'
import type { PreferenceRecipeInput } from './dpo-recipe.ts'
import { tinyModel } from './quickstart.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-dpo-'))
  // The embedded model as one of blocks: what it predicts at masks is not trained, which does not matter here.
  await cp(tinyModel, join(folder, 'blocks'), { recursive: true })
  const path = join(folder, 'blocks', 'config.json')
  const config = { ...JSON.parse(await readFile(path, 'utf8')), mask_token_id: 259, block_size: 8 }
  await writeFile(path, JSON.stringify(config))
  const words = ['stone', 'river', 'cloud', 'field', 'light', 'night']
  const rows = words.map((word) => ({ prompt: `say(${word})=`, chosen: word.toUpperCase(), rejected: word }))
  await writeFile(join(folder, 'pairs.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const recipe = (name: string, changes: Partial<PreferenceRecipeInput> = {}): PreferenceRecipeInput => ({
  model: join(folder, 'blocks'),
  output_dir: join(folder, name),
  threads: 1,
  data: {
    ...{ train_path: join(folder, 'pairs.jsonl'), validation_path: join(folder, 'pairs.jsonl') },
    max_seq_len: 32,
  },
  train: { epochs: 4, lr: 1e-3, micro_batch_size: 2, global_batch_size: 2, seed: 3, eval_steps: 0 },
  preference: { draws: 2, validation_draws: 2 },
  ...changes,
})
const run = (name: string, changes: Partial<PreferenceRecipeInput> = {}, options: Partial<DpoOptions> = {}) =>
  dpo({ ...options, recipe: recipe(name, changes) })

async function weightsOf(model: string): Promise<string> {
  const { parameters } = await load(model)
  return [...parameters]
    .map(([name, { data }]) => `${name} ${data.reduce((sum, x, i) => sum + x * ((i % 7) + 1), 0)}`)
    .join()
}

describe('dpo', () => {
  it.each([
    ['all weights of a model of blocks', {}, undefined],
    ['low-rank weights of it', { lora: { rank: 4 } }, 'adapter'],
    ['an autoregressive model', { model: tinyModel }, undefined],
  ])('trains %s', async (name, changes, adapter) => {
    const { status, before, after, model, adapter: path } = await run(name, changes)
    expect(status).toBe('completed')
    expect(before!.nll).toBeCloseTo(Math.LN2, 3)
    expect(before!.metrics!.reward_margin).toBeCloseTo(0, 3)
    expect(after!.metrics!.reward_margin).toBeGreaterThan(0.1)
    expect(after!.metrics!.reward_accuracy).toBeGreaterThan(0.8)
    expect(await weightsOf(model!)).not.toBe(await weightsOf(join(folder, 'blocks')))
    expect(path).toBe(adapter && join(folder, name, adapter))
  })

  it('goes on after an interruption as if there had been none', async () => {
    const whole = await run('whole')
    const stop = new AbortController()
    const onEvent = (event: DpoEvent) => {
      if (event.type === 'step' && event.step === 3) stop.abort()
    }
    const stopped = await run('stopped', {}, { signal: stop.signal, onEvent })
    expect(stopped).toMatchObject({ status: 'interrupted', step: 3, model: undefined })
    const resumed = await run('stopped', {}, { resume: true })
    expect(await weightsOf(resumed.model!)).toBe(await weightsOf(whole.model!))
    await expect(run('stopped', { preference: { draws: 4 } }, { resume: true })).rejects.toThrow('preference.draws')
  })

  it('measures the reference once, also after an interruption', async () => {
    const cache = join(folder, 'cache')
    const preference = { draws: 2, validation_draws: 2, reference_cache: cache }
    const stop = new AbortController()
    const started: DpoEvent[] = []
    const stopped = await run(
      'first',
      { preference },
      {
        signal: stop.signal,
        onEvent(event) {
          started.push(event)
          if (event.type === 'reference') stop.abort()
        },
      },
    )
    expect(stopped).toMatchObject({ status: 'interrupted', step: 0 })
    const [name] = await readdir(cache)
    const entries = async () => JSON.parse(await readFile(join(cache, name!), 'utf8')).pairs as Record<string, number[]>
    const some = await entries()
    const first = await run('first', { preference }, { resume: true })
    const all = await entries()
    expect(Object.keys(all).length).toBeGreaterThan(Object.keys(some).length)
    expect(all).toMatchObject(some)
    // With another beta nothing is measured anew: the file stays as it is.
    await writeFile(join(cache, name!), `${await readFile(join(cache, name!), 'utf8')}\n`)
    const other = await run('second', { preference: { ...preference, beta: 0.2 } })
    expect(await readdir(cache)).toEqual([name])
    expect(await readFile(join(cache, name!), 'utf8')).toMatch(/\n$/)
    expect(other.before!.nll).toBeCloseTo(first.before?.nll ?? Math.LN2, 3)
    // Other weights, draws or pairs have a file of their own.
    await run('third', { preference: { ...preference, draws: 4 } })
    expect(await readdir(cache)).toHaveLength(2)
    await writeFile(join(cache, name!), '{"format":1,"pairs":{"training 0 0":"x"}}')
    await expect(run('fourth', { preference })).rejects.toThrow('delete it')
  })

  it('names the row whose prompts differ, and writes nothing', async () => {
    const path = join(folder, 'wrong.jsonl')
    const row = (question: string) => [{ role: 'user', content: question }]
    const right = { prompt: 'a=', chosen: 'b', rejected: 'c' }
    await writeFile(
      path,
      [right, { chosen: row('a'), rejected: row('b') }].map((one) => JSON.stringify(one)).join('\n'),
    )
    await expect(run('wrong', { data: { train_path: path, max_seq_len: 32 } })).rejects.toThrow(
      /wrong\.jsonl:2: the prompts differ/,
    )
    expect(await readdir(folder)).not.toContain('wrong')
  })

  it('says which settings do not fit', async () => {
    await expect(run('a', { preference: { draws: 3, antithetic: true } })).rejects.toThrow(
      'preference.antithetic: needs even',
    )
    await expect(run('b', { model: tinyModel, preference: { antithetic: true } })).rejects.toThrow('is exact')
    await expect(run('c', { data: { train_path: join(folder, 'pairs.jsonl'), max_seq_len: 30 } })).rejects.toThrow(
      'not a multiple of the block size 8',
    )
    await expect(run('d', { train: { epochs: 0 } })).rejects.toThrow('train.epochs')
  })
})
