// The library's one-call generation against the embedded model.
import { describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { tinyModel } from '../jobs/quickstart.ts'
import { createModel } from '../models/index.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { written } from './assemble.ts'
import { createGenerator } from './generator.ts'
import { generate } from './open.ts'

describe('generate', () => {
  it('answers, and what it shows on the way only grows into the answer', async () => {
    const loaded = await load(tinyModel)
    const run = generate(loaded, 'reverse(stone)=', { template: 'none', threads: 1 })
    let shown = ''
    for (;;) {
      const { done, value } = await run.next()
      expect(value.text.startsWith(shown)).toBe(true)
      shown = value.text
      if (done) {
        expect(value.text).toBe('enots')
        expect(value).toMatchObject({ stop: 'eos', tokens: 6, forwards: 6 })
        return
      }
      expect(value.committed.length).toBeGreaterThan(0)
    }
  })

  it('ends before a stop string, and shows nothing of one on the way', async () => {
    const loaded = await load(tinyModel)
    const executor = createExecutor({ threads: 1 })
    const generator = await createGenerator(executor, loaded)
    const prompt = loaded.tokenizer.encode('reverse(stone)=')
    for (const [stop, text, reason] of [
      [['ot'], 'en', 'stop'],
      [['zz', 'enots'], '', 'stop'],
      [['enotsx', 'tz'], 'enots', 'eos'],
    ] as const) {
      const shown: string[] = []
      const run = generator.write(prompt, { maxNewTokens: 20, stop })
      for (;;) {
        const { done, value } = await run.next()
        shown.push(value.text)
        if (!done) continue
        expect(value).toMatchObject({ text, stop: reason })
        expect(value.ids.length).toBe(value.tokens)
        break
      }
      for (const part of shown) expect(text.startsWith(part)).toBe(true)
    }
    expect(() => generator.write(prompt, { maxNewTokens: 1, stop: [''] })).toThrow('must not be empty')
    expect(() => generator.generate(prompt, { maxNewTokens: 1, threshold: 0.5 })).toThrow('threshold: only for block')
    await executor.dispose()
  })

  it('checks every draft whatever threshold the files name, except where mode diffusion is asked for', async () => {
    const loaded = await load(tinyModel)
    const mask = loaded.tokenizer.tokenToId('<|mask|>')
    // Drafts of a model that never learned to draft: taken unchecked they change the text.
    const model = createModel({
      ...loaded.model.config,
      ...{ mask_token_id: mask, block_size: 8, causal_context: true },
    })
    const executor = createExecutor({ threads: 1 })
    const generator = await createGenerator(executor, { ...loaded, model, generationConfig: { threshold: 0 } })
    const prompt = loaded.tokenizer.encode('reverse(stone)=')
    const texts = new Map<string, string>()
    for (const mode of generator.modes)
      texts.set(mode, (await written(generator.write(prompt, { mode, maxNewTokens: 12 }))).text)
    expect(generator.mode).toBe('speculative')
    expect(texts.get('speculative')).toBe('enots')
    expect(texts.get('ar')).toBe('enots')
    expect(texts.get('diffusion')).not.toBe('enots')
    const asked = await written(generator.write(prompt, { threshold: 0, maxNewTokens: 12 }))
    expect(asked.text).toBe(texts.get('diffusion'))
    await executor.dispose()
  })

  it('refuses a wrong value in generation_config.json before it loads the weights, and names file and key', async () => {
    const loaded = await load(tinyModel)
    const executor = createExecutor({ threads: 1 })
    for (const [generationConfig, message] of [
      [{ lookup: 400 }, /generation_config\.json: lookup: expected a whole number from 0 to 32, not 400$/],
      [{ masks: 4 }, /generation_config\.json: masks: only models trained with objective hybrid/],
    ] as const)
      await expect(createGenerator(executor, { ...loaded, generationConfig })).rejects.toThrow(message)
    await executor.dispose()
  })
})
