// Tuning against a converted model in miniature: the tiny base with its mask token, whose answers are as they come.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { configuredSettings } from '../decode/index.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createGenerator } from '../text/generator.ts'
import { tinyModel } from './quickstart.ts'
import { parseSections } from './recipe.ts'
import { checkTunable, rowCost, tune, writeTuned } from './tune.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-tune-'))
  await cp(tinyModel, folder, { recursive: true })
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'))
  const { tokenizer } = await load(tinyModel)
  const mask = tokenizer.tokenToId('<|mask|>')
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({ ...config, mask_token_id: mask, block_size: 8, same_token_labels: false }),
  )
})
afterAll(() => rm(folder, { recursive: true }))

const { eval: settings } = parseSections({ eval: { tasks: ['sort', 'count'], task_rows: 3 } })
const common = { eval: settings, maxNewTokens: 24, template: 'none' as const, threads: 1 }

describe('tune', () => {
  it('measures every way beside the base, and what it writes is what generating takes', async () => {
    const options = { blockSizes: [4, 8], bufferSizes: [1, 2], strategies: ['threshold' as const, 'factor' as const] }
    const result = await tune({ ...common, ...options, model: folder, base: tinyModel })
    expect(result.forwards.map(({ rows }) => rows)).toEqual([1, 2, 4, 8, 16, 32, 64])
    expect(result.rows).toHaveLength((7 + 6) * 2 * 2)
    expect(result.base?.score?.rows).toBe(6)
    for (const { tokensPerForward, tokensPerSecond, speedup } of result.rows) {
      expect(tokensPerForward).toBeGreaterThan(0)
      expect(speedup).toBeCloseTo(tokensPerSecond / (result.base?.tokensPerSecond ?? 0))
    }
    expect(result.aup).toHaveLength(2 * 2 * 2)
    expect(result.front.length).toBeGreaterThan(0)
    const chosen = result.rows[result.chosen]
    // The fastest of those that score alike is on the front, whether or not the base's score is kept.
    expect(result.front).toContain(result.chosen)
    expect(result.keepsScore).toBe((chosen.score?.accuracy ?? 0) >= (result.base?.score?.accuracy ?? 0) - 0.01)
    await checkTunable(folder)
    const path = await writeTuned(folder, chosen.settings)
    await expect(checkTunable(folder)).rejects.toThrow(/has decoding settings already \(.*--force/)
    await checkTunable(folder, { force: true })
    const written = JSON.parse(await readFile(path, 'utf8'))
    expect(configuredSettings(written)).toEqual(chosen.settings)
    const executor = createExecutor({ threads: 1 })
    const generator = await createGenerator(executor, await load(folder))
    expect(generator.blockSize).toBe(chosen.settings.blockSize)
    await executor.dispose()
  })

  it('finds how many masks draft fastest for a model that checks itself, and what a position costs', async () => {
    const path = join(folder, 'config.json')
    const config = JSON.parse(await readFile(path, 'utf8'))
    const hybrid = await mkdtemp(join(tmpdir(), 'unmask-tune-'))
    try {
      await cp(folder, hybrid, { recursive: true })
      await rm(join(hybrid, 'generation_config.json'), { force: true })
      await writeFile(join(hybrid, 'config.json'), JSON.stringify({ ...config, causal_context: true }))
      const result = await tune({ ...common, model: hybrid, base: tinyModel })
      expect(result.rows.map(({ settings }) => [settings.masks, settings.lookup])).toEqual(
        [2, 4, 8].flatMap((masks) => [0, 16].map((lookup) => [masks, lookup])),
      )
      for (const { score } of result.rows) expect(score?.accuracy).toBe(result.base?.score?.accuracy)
      expect(result.aup).toEqual([])
      const { settings } = result.rows[result.chosen]
      expect(settings.rowCost).toBe(rowCost(result.forwards))
      const written = JSON.parse(await readFile(await writeTuned(hybrid, settings), 'utf8'))
      expect(written).toMatchObject({ masks: settings.masks, row_cost: settings.rowCost })
      await expect(tune({ ...common, model: hybrid, strategies: ['threshold'] })).rejects.toThrow(
        'settings of objective diffusion are not for it: strategies',
      )
    } finally {
      await rm(hybrid, { recursive: true })
    }
  })

  it('takes the cost of a position from forwards of several', () => {
    const line = [1, 2, 4, 8, 16, 32, 64].map((rows) => ({ rows, milliseconds: 10 + 0.4 * (rows - 1) }))
    expect(rowCost(line)).toBe(0.04)
    expect(rowCost(line.map(({ rows }) => ({ rows, milliseconds: 10 - rows / 100 })))).toBe(0.005)
  })

  it('says what is wrong', async () => {
    const nothing = parseSections({}).eval
    await expect(tune({ ...common, eval: nothing, model: folder })).rejects.toThrow('nothing to tune with')
    await expect(tune({ ...common, model: tinyModel })).rejects.toThrow('is autoregressive')
    await expect(writeTuned(join(folder, 'config.json'), {})).rejects.toThrow('model folder')
  })
})
