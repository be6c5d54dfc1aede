// The library's one-call generation against the embedded model.
import { describe, expect, it } from 'vitest'
import { defaultDecoding } from './decode/index.ts'
import {
  createGenerator,
  generate,
  generationConfigOf,
  generationDefaults,
  streamText,
  withDefaults,
} from './generate.ts'
import { load } from './load.ts'
import { tinyModel } from './quickstart.ts'
import { createExecutor } from './runtime/onnxruntime/executor.ts'

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
      expect(value.tokens.length).toBeGreaterThan(0)
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
      const run = streamText(
        generator.generate(prompt, { maxNewTokens: 20, stop }),
        prompt.length,
        loaded.tokenizer,
        stop,
      )
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
    expect(() => generator.generate(prompt, { maxNewTokens: 1, stop: [''] })).toThrow('must not be empty')
    expect(() => generator.generate(prompt, { maxNewTokens: 1, threshold: 0.5 })).toThrow('threshold: only for block')
    await executor.dispose()
  })
})

describe('settings of block decoding', () => {
  const tuned = { strategy: 'factor', factor: 0.5, buffer_size: 3, block_size: 8, reuse: true }
  it('that are missing come from generation_config.json, or else from unmask', () => {
    expect(withDefaults({})).toEqual(defaultDecoding)
    expect(withDefaults({ threshold: 0.6 })).toEqual({ ...defaultDecoding, threshold: 0.6 })
    expect(withDefaults({ bufferSize: 1 }, tuned)).toEqual({
      ...{ strategy: 'factor', factor: 0.5, bufferSize: 1, blockSize: 8, reuse: true },
    })
  })

  it('are written as they are read, whatever the strategy', () => {
    for (const settings of [
      { strategy: 'fixed', tokensPerStep: 4, blockSize: 8, bufferSize: 1 },
      { strategy: 'edit', threshold: 0.7, editingThreshold: 0.9, bufferSize: 2 },
      { strategy: 'entropy_bound', entropyBound: 0.3, logitScale: 1.2 },
    ] as const)
      expect(generationDefaults(generationConfigOf(settings))).toEqual(settings)
  })

  it('of one strategy are not taken by another', () => {
    expect(withDefaults({ strategy: 'fixed' }, tuned)).toEqual({ strategy: 'fixed', bufferSize: 3, blockSize: 8 })
    expect(withDefaults({ strategy: 'threshold' })).toEqual({ strategy: 'threshold', bufferSize: 2 })
  })

  it('imply the strategy that has them', () => {
    expect(withDefaults({ stepsPerBlock: 4 }).strategy).toBe('threshold')
    expect(withDefaults({ editingThreshold: 0.9, threshold: 0.8 }).strategy).toBe('edit')
    expect(withDefaults({ entropyBound: 0.2 }, tuned).strategy).toBe('entropy_bound')
    expect(withDefaults({ selfVerify: 2 }).bufferSize).toBeUndefined()
  })
})
