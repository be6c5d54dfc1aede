import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type LoadedModel, load } from '../checkpoint/load.ts'
import { tinyModel } from '../jobs/quickstart.ts'
import { createModel } from '../models/index.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { fillGaps, parseGaps } from './fill.ts'
import { createGenerator, type Generator } from './generator.ts'

const executor = createExecutor({ threads: 1 })
let loaded: LoadedModel
let generator: Generator
beforeAll(async () => {
  loaded = await load(tinyModel)
  const mask = loaded.tokenizer.tokenToId('<|mask|>')
  const model = createModel({ ...loaded.model.config, mask_token_id: mask, block_size: 8 })
  generator = await createGenerator(executor, { ...loaded, model })
})
afterAll(() => executor.dispose())

describe('gaps', () => {
  it('are written in double braces', () => {
    expect(parseGaps('a {{3}} b{{2-5}}')).toEqual(['a ', { least: 3, most: 3 }, ' b', { least: 2, most: 5 }])
    expect(parseGaps('{{1}}')).toEqual([{ least: 1, most: 1 }])
    expect(() => parseGaps('no {2} gap')).toThrow('has no gap')
    expect(() => parseGaps('{{0}}')).toThrow('{{0}}: a gap is {{n}} or {{m-n}}')
    expect(() => parseGaps('{{5-2}}')).toThrow('{{5-2}}')
  })

  it('are filled, and the text around them stays', async () => {
    const pieces = parseGaps('The {{3}} of the {{1}} union')
    const { text, fills } = await fillGaps(generator, loaded.tokenizer, pieces)
    expect(fills.map(({ tokens }) => tokens)).toEqual([3, 1])
    expect(text).toBe(`The ${fills[0].text} of the ${fills[1].text} union`)
    for (const { confidence } of fills) {
      expect(confidence).toBeGreaterThan(0)
      expect(confidence).toBeLessThanOrEqual(1)
    }
  })

  it('of a flexible length take one of the lengths, and fill it as it is filled alone', async () => {
    for (const text of ['sort(dbca)={{2-5}}', 'The {{1-4}} of the {{2}} union']) {
      const { fills } = await fillGaps(generator, loaded.tokenizer, parseGaps(text))
      const [, least, most] = /\{\{(\d)-(\d)\}\}/.exec(text) as unknown as [string, string, string]
      expect(fills[0].tokens).toBeGreaterThanOrEqual(Number(least))
      expect(fills[0].tokens).toBeLessThanOrEqual(Number(most))
      const fixed = parseGaps(text.replace(/\{\{\d-\d\}\}/, `{{${fills[0].tokens}}}`))
      expect((await fillGaps(generator, loaded.tokenizer, fixed)).fills).toEqual(fills)
    }
  })

  it('need a model that can fill, and are bounded', async () => {
    const base = await createGenerator(executor, loaded)
    await expect(fillGaps(base, loaded.tokenizer, parseGaps('{{1}}'))).rejects.toThrow('diffusion model')
    await expect(fillGaps(generator, loaded.tokenizer, parseGaps('{{1-200}}'))).rejects.toThrow('at most 64 lengths')
    await base.dispose()
  })
})
