// Adapters on the disk: what is written is read again, in PEFT's names; what is broken or hostile is an error that says where.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { type Parameter, UserError } from '../core/types.ts'
import { initialLora, loraShapes } from '../models/lora.ts'
import { type AdapterConfig, loadAdapter, readAdapterConfig, saveAdapter } from './adapter.ts'
import { openSafetensors } from './safetensors.ts'
import { writeSafetensors } from './safetensors-write.ts'

const { model } = tinyLlama()
const config: AdapterConfig = {
  rank: 2,
  alpha: 4,
  targetModules: ['q_proj', 'down_proj'],
  dora: false,
  base: 'models/base',
  maskTokenId: 39,
  blockSize: 6,
  decoding: { masks: 3, rowCost: 0.25 },
}
const shapesOf = ({ rank, targetModules }: AdapterConfig) => loraShapes(model, { rank, targetModules })
const parameters = initialLora(shapesOf(config), new Float32Array(32).fill(0.5), 3)

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-adapter-'))
})
afterAll(() => rm(folder, { recursive: true }))

const saved = async (name: string) => {
  const path = join(folder, name)
  await saveAdapter(path, { config, parameters })
  return path
}

describe('saveAdapter and loadAdapter', () => {
  it('give back what was saved', async () => {
    const path = await saved('whole')
    expect(await loadAdapter(path, shapesOf)).toEqual({ config, parameters })
  })

  it("has PEFT's names, shapes and keys", async () => {
    const path = await saved('peft')
    const file = await openSafetensors(join(path, 'adapter_model.safetensors'))
    await file.close()
    const shapeOf = (name: string) => file.tensors.get(`base_model.model.${name}`)?.shape
    expect(shapeOf('model.layers.1.self_attn.q_proj.lora_A.weight')).toEqual([2, 32])
    expect(shapeOf('model.layers.1.self_attn.q_proj.lora_B.weight')).toEqual([32, 2])
    expect(shapeOf('model.layers.0.mlp.down_proj.lora_A.weight')).toEqual([2, 48])
    expect(shapeOf('model.embed_tokens.token_adapter.trainable_tokens_delta')).toEqual([1, 32])
    expect(file.tensors.size).toBe(2 * 2 * 2 + 1)
    expect(JSON.parse(await readFile(join(path, 'adapter_config.json'), 'utf8'))).toMatchObject({
      peft_type: 'LORA',
      base_model_name_or_path: 'models/base',
      r: 2,
      lora_alpha: 4,
      target_modules: ['q_proj', 'down_proj'],
      trainable_token_indices: { embed_tokens: [39] },
    })
  })

  it('says which tensor is missing, misshapen, unknown or not finite', async () => {
    const path = await saved('tensors')
    const file = join(path, 'adapter_model.safetensors')
    const named = [...parameters].map(([name, value]): [string, Parameter] => [`base_model.model.${name}`, value])
    const withTensors = async (tensors: [string, Parameter][]) => {
      await writeSafetensors(file, new Map(tensors))
      return loadAdapter(path, shapesOf)
    }
    const [[name, { shape, data }]] = named
    await expect(withTensors(named.slice(1))).rejects.toThrow(`tensor ${name} is missing`)
    await expect(withTensors([[name, { shape: [...shape].reverse(), data }], ...named.slice(1)])).rejects.toThrow(
      'has the shape',
    )
    await expect(withTensors([...named, ['other', { shape: [1], data: Float32Array.of(1) }]])).rejects.toThrow(
      'tensor other has no place',
    )
    await expect(withTensors([[name, { shape, data: data.map(() => Number.NaN) }], ...named.slice(1)])).rejects.toThrow(
      'not finite',
    )
  })

  it.each([
    [{ peft_type: 'IA3' }, 'peft_type'],
    [{ r: 0 }, 'r must'],
    [{ r: 1e9 }, 'r must'],
    [{ lora_alpha: 'x' }, 'lora_alpha'],
    [{ target_modules: [] }, 'target_modules'],
    [{ target_modules: ['../x'] }, 'target_modules'],
    [{ use_dora: true }, 'use_dora'],
    [{ block_size: 1e6 }, 'block_size'],
    [{ decoding: { masks: 7, row_cost: 0 } }, 'masks from 1 to block_size, 6'],
    [{ decoding: { masks: 1, row_cost: 2 } }, 'row_cost'],
    [{ decoding: null }, 'decoding'],
    [{ mask_token_id: -1 }, 'mask_token_id'],
  ])('refuses %j', async (change, message) => {
    const path = await saved('config')
    const file = join(path, 'adapter_config.json')
    const json = JSON.parse(await readFile(file, 'utf8')) as object
    await writeFile(file, JSON.stringify({ ...json, ...change }))
    await expect(loadAdapter(path, shapesOf)).rejects.toThrow(message)
    await expect(loadAdapter(path, shapesOf)).rejects.toThrow(UserError)
  })

  it('takes or refuses any config, and never breaks', async () => {
    const path = await saved('fuzz')
    const file = join(path, 'adapter_config.json')
    const json = JSON.parse(await readFile(file, 'utf8')) as object
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...Object.keys(json)), fc.jsonValue(), async (key, value) => {
        await writeFile(file, JSON.stringify({ ...json, [key]: value }))
        await readAdapterConfig(path).catch((error: unknown) => expect(error).toBeInstanceOf(UserError))
      }),
      { seed: 4 },
    )
  })
})
