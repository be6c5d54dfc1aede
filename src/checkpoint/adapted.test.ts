// An adapter as a model: the base with its low-rank weights, wherever a model can be given.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { random } from '../core/random.ts'
import type { Parameter } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { initialLora, loraShapes } from '../models/lora.ts'
import { openModel } from '../text/open.ts'
import { type ModelAdapter, readAdapterConfig, saveModelAdapter } from './adapter.ts'
import { openCheckpoint } from './index.ts'
import { load, loadForInference } from './load.ts'
import { tinyModel } from './names.ts'
import { openSafetensors } from './safetensors.ts'
import { writeSafetensors } from './safetensors-write.ts'

let folder: string
let adapter: ModelAdapter
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-adapted-'))
  const base = await load(tinyModel)
  const targetModules = ['q_proj', 'down_proj']
  const parameters = initialLora(loraShapes(base.model, { rank: 4, targetModules, maskEmbedding: false }), undefined, 3)
  for (const [name, { data }] of parameters) if (name.includes('lora_B')) random(1, 2).fillUniform(data)
  const modelConfig = { mask_token_id: 259, block_size: 4, causal_context: true }
  adapter = { config: { rank: 4, alpha: 2, targetModules, dora: false, base: tinyModel, modelConfig }, parameters }
})
afterAll(() => rm(folder, { recursive: true }))

const save = async (name: string, change: Partial<ModelAdapter> = {}): Promise<string> => {
  const path = join(folder, name)
  await saveModelAdapter(path, { ...adapter, ...change })
  return path
}

it('is the base, with the products added to its projections and the config changed', async () => {
  const path = await save('whole')
  const [base, changed] = [await load(tinyModel), await load(path)]
  expect(changed.model.config).toEqual({ ...base.model.config, ...adapter.config.modelConfig })
  const stored = await openSafetensors(join(path, 'adapter_model.safetensors'))
  const half = (name: string) => stored.read(`base_model.model.${name}`)
  let different = 0
  for (const [name, { shape, data }] of base.parameters) {
    const found = changed.parameters.get(name) as Parameter
    const lora = name.replace(/weight$/, 'lora_A.weight')
    if (!adapter.parameters.has(lora)) {
      expect(found.data).toEqual(data)
      continue
    }
    different++
    const [a, b] = [await half(lora), await half(lora.replace('lora_A', 'lora_B'))]
    const [rows, width] = shape as [number, number]
    for (const [row, column] of [
      [0, 0],
      [rows - 1, width - 1],
      [3, 7],
    ] as const) {
      let product = 0
      for (let r = 0; r < 4; r++) product += b[row * 4 + r] * a[r * width + column]
      expect(found.data[row * width + column]).toBeCloseTo(data[row * width + column] + 0.5 * product, 5)
    }
  }
  expect(different).toBe(adapter.parameters.size / 2)
  expect(createModel(changed.model.config).dimensions).toEqual(base.model.dimensions)
  await stored.close()
})

it('is read the same to run it as to train it, and writes', async () => {
  const path = await save('run')
  const [trained, run] = [await load(path), await loadForInference(path)]
  for (const [name, parameter] of run.parameters) {
    const values = 'read' in parameter && parameter.read ? await parameter.read() : parameter
    expect((values as Parameter).data).toEqual(trained.parameters.get(name)!.data)
  }
  const model = await openModel(path)
  expect(model.generator.modes).toEqual(['speculative', 'ar', 'diffusion'])
  const answer = async (mode: 'ar' | 'speculative') => {
    const writing = model.generate('add(1,2)=', { mode, maxNewTokens: 12 })
    for (;;) {
      const { done, value } = await writing.next()
      if (done) return value.ids
    }
  }
  expect(await answer('speculative')).toEqual(await answer('ar'))
  await model.dispose()
})

it('can say how it is asked to write a text anew', async () => {
  const parameters = new Map(
    [...adapter.parameters].map(([name, { shape, data }]) => [name, { shape, data: data.map(() => 0) }]),
  )
  const asked = (rewrite_prompt: unknown) => ({ ...adapter.config, modelConfig: { rewrite_prompt } })
  const model = await openModel(await save('rewrites', { parameters, config: asked('reverse({text})=') }))
  expect(await model.rewrite('stone')).toMatchObject({ text: 'enots', changed: 4 })
  await expect(model.rewrite('stone', { keep: 'x' })).rejects.toThrow(
    'keep: not read by a model that writes the text anew',
  )
  await model.dispose()
  const wrong = await openModel(await save('wrong', { parameters, config: asked('reverse') }))
  await expect(wrong.rewrite('stone')).rejects.toThrow(/rewrite_prompt is "reverse"; it must be a text with/)
  await wrong.dispose()
})

describe('what does not fit is named', () => {
  const tensors = async (path: string, change: (all: Map<string, Parameter>) => void) => {
    const file = join(path, 'adapter_model.safetensors')
    const all = new Map(
      [...adapter.parameters].map(([name, { shape, data }]) => [
        `base_model.model.${name}`,
        { shape, data: data.slice() },
      ]),
    )
    change(all)
    await writeSafetensors(file, all)
    return openCheckpoint(path)
  }
  const q = 'base_model.model.model.layers.0.self_attn.q_proj'
  it.each<[string, (all: Map<string, Parameter>) => void, RegExp]>([
    ['half a product', (all) => all.delete(`${q}.lora_B.weight`), /q_proj\.lora_B\.weight is missing/],
    [
      'another rank',
      (all) => all.set(`${q}.lora_A.weight`, { shape: [2, 3], data: new Float32Array(6) }),
      /q_proj\.lora_A\.weight has the shape \[2, 3\], not of rank 4/,
    ],
    [
      'another width',
      (all) => all.set(`${q}.lora_A.weight`, { shape: [4, 3], data: new Float32Array(12) }),
      /changes model\.layers\.0\.self_attn\.q_proj\.weight of the shape \[\d+, 3\], which is/,
    ],
    [
      'values that are not finite',
      (all) => all.get(`${q}.lora_A.weight`)!.data.fill(Number.NaN),
      /q_proj\.lora_A\.weight holds values that are not finite/,
    ],
    ['a tensor of another kind', (all) => all.set('x', { shape: [1], data: new Float32Array(1) }), /tensor x is not a/],
    [
      'a projection that the base does not have',
      (all) => {
        all.set('base_model.model.y.lora_A.weight', { shape: [4, 1], data: new Float32Array(4) })
        all.set('base_model.model.y.lora_B.weight', { shape: [1, 4], data: new Float32Array(4) })
      },
      /changes y\.weight, which .* does not have/,
    ],
  ])('%s', async (name, change, message) => {
    const path = await save(name.replaceAll(' ', '-'))
    await expect(tensors(path, change)).rejects.toThrow(message)
  })

  it('an adapter whose base is an adapter', async () => {
    const inner = await save('inner')
    const outer = await save('outer', { config: { ...adapter.config, base: inner } })
    await expect(openCheckpoint(outer)).rejects.toThrow(/holds an adapter, not the weights of a model/)
  })
  it('a config that is no object, and an adapter that drafts or does not', async () => {
    const path = await save('config')
    const file = join(path, 'adapter_config.json')
    const json = JSON.parse(await readFile(file, 'utf8'))
    await expect(readAdapterConfig(path)).rejects.toThrow(/not one that drafts: give it as the model/)
    await writeFile(file, JSON.stringify({ ...json, model_config: { block_size: 'x' } }))
    await expect(openCheckpoint(path)).rejects.toThrow(
      `${file}: model_config: block_size must be a whole number from 1 to 8192, got "x"`,
    )
    await writeFile(file, JSON.stringify({ ...json, model_config: 3 }))
    await expect(openCheckpoint(path)).rejects.toThrow('model_config must be an object, got 3')
    await writeFile(file, JSON.stringify({ ...json, decoding: {} }))
    await expect(openCheckpoint(path)).rejects.toThrow(/holds an adapter that drafts, not a model/)
  })
})
