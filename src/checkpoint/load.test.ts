import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { valuesOf } from '../core/types.ts'
import { initialLora, loraShapes } from '../models/lora.ts'
import { saveAdapter } from './adapter.ts'
import { saveCheckpoint } from './index.ts'
import { load, loadAdapterFor, loadForInference, loadForTraining } from './load.ts'
import { tinyModel as tiny } from './names.ts'

const folder = mkdtempSync(join(tmpdir(), 'unmask-load-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('load', () => {
  it('draws random weights as Hugging Face does, the same for a seed', async () => {
    const { parameters, model, name } = await load(tiny, { init: 'random', seed: 3 })
    expect(name).toBe('tiny')
    expect([...parameters.keys()]).toEqual([...model.parameters.keys()])
    const { data } = parameters.get('model.embed_tokens.weight')!
    const mean = data.reduce((sum, value) => sum + value, 0) / data.length
    const deviation = Math.sqrt(data.reduce((sum, value) => sum + (value - mean) ** 2, 0) / data.length)
    expect(Math.abs(mean)).toBeLessThan(1e-3)
    expect(deviation).toBeCloseTo(0.02, 3)
    expect(new Set(parameters.get('model.norm.weight')!.data)).toEqual(new Set([1]))

    const again = await load(tiny, { init: 'random', seed: 3 })
    const other = await load(tiny, { init: 'random', seed: 4 })
    expect(again.parameters.get('model.embed_tokens.weight')).toEqual(parameters.get('model.embed_tokens.weight'))
    expect(other.parameters.get('model.embed_tokens.weight')).not.toEqual(parameters.get('model.embed_tokens.weight'))
  })

  it('reads what was saved', async () => {
    const path = join(folder, 'saved')
    const { model, parameters, tokenizer } = await load(tiny, { init: 'random' })
    await saveCheckpoint(path, { config: model.config, parameters, tokenizerFiles: tokenizer.files() })
    expect((await load(path)).parameters).toEqual(parameters)
  })

  it('leaves weights that cannot be mapped in their file until they are taken', async () => {
    const path = join(folder, 'halves')
    const { model, parameters, tokenizer } = await load(tiny, { init: 'random' })
    const files = { config: model.config, parameters, tokenizerFiles: tokenizer.files() }
    await saveCheckpoint(path, { ...files, dtype: 'BF16' })
    const exact = (await load(path)).parameters
    const stored = (await loadForInference(path)).parameters
    for (const [name, parameter] of stored) {
      if (!('read' in parameter && parameter.read)) throw new Error(`${name} was read`)
      expect(await parameter.read()).toEqual(exact.get(name))
    }
    await saveCheckpoint(path, files)
    const [first] = stored.values()
    await expect('read' in first! && first.read?.()).rejects.toThrow(/had \d+ when the model was opened; load it again/)
  })

  it.each(['pretrained', 'random'] as const)('gives a trainer the same %s weights one by one', async (init) => {
    const whole = await load(tiny, { init, seed: 5 })
    const { parameters } = await loadForTraining(tiny, { init, seed: 5 })
    expect([...parameters.keys()]).toEqual([...whole.parameters.keys()])
    // In any order.
    for (const name of [...parameters.keys()].reverse()) {
      const parameter = parameters.get(name)!
      expect(parameter).not.toHaveProperty('data')
      expect(await valuesOf(parameter)).toEqual(whole.parameters.get(name))
    }
  })

  it('names the tensor that is missing or has another shape', async () => {
    const { model, parameters, tokenizer } = await load(tiny, { init: 'random' })
    const save = async (name: string, change: (all: typeof parameters) => void) => {
      const changed = new Map(parameters)
      change(changed)
      const path = join(folder, name)
      await saveCheckpoint(path, { config: model.config, parameters: changed, tokenizerFiles: tokenizer.files() })
      return path
    }
    const without = await save('without', (all) => all.delete('model.norm.weight'))
    await expect(load(without)).rejects.toThrow('tensors are missing: model.norm.weight')
    const reshaped = await save('reshaped', (all) =>
      all.set('model.norm.weight', { shape: [2], data: new Float32Array(2) }),
    )
    await expect(load(reshaped)).rejects.toThrow(
      'tensor model.norm.weight has the shape [2], config.json asks for [128]',
    )
  })

  it('needs a model type', async () => {
    const path = join(folder, 'typeless')
    cpSync(tiny, path, { recursive: true })
    writeFileSync(join(path, 'config.json'), '{}')
    await expect(load(path, { init: 'random' })).rejects.toThrow('model_type is missing')
  })
})

describe('loadAdapterFor', () => {
  it('says what to do with an adapter whose settings an earlier version measured', async () => {
    const { model } = tinyLlama()
    const path = join(folder, 'old-adapter')
    const targetModules = ['q_proj']
    const parameters = initialLora(loraShapes(model, { rank: 2, targetModules }), new Float32Array(32).fill(0.5), 3)
    await saveAdapter(path, {
      config: {
        ...{ rank: 2, alpha: 4, targetModules, dora: false, base: 'models/base', maskTokenId: 39, blockSize: 6 },
        decoding: { masks: 3, rowCost: 0.25 },
      },
      parameters,
    })
    const file = join(path, 'adapter_config.json')
    const config = JSON.parse(readFileSync(file, 'utf8'))
    expect((await loadAdapterFor(model, path)).config.decoding).toEqual({ masks: 3, rowCost: 0.25 })
    writeFileSync(file, JSON.stringify({ ...config, decoding: { masks: 3, draft_threshold: 0.1 } }))
    await expect(loadAdapterFor(model, path)).rejects.toThrow(
      /old-adapter\/adapter_config\.json: decoding: row_cost took the place of draft_threshold: .*unmask accelerate/,
    )
  })
})
