import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { adapterSummary, saveModelAdapter } from '../checkpoint/adapter.ts'
import { openCheckpoint } from '../checkpoint/index.ts'
import { load, loadForInference } from '../checkpoint/load.ts'
import { tinyModel } from '../checkpoint/names.ts'
import { random } from '../core/random.ts'
import { initialLora, initialMagnitudes, loraShapes } from '../models/lora.ts'
import { floatValues } from '../quant/layout.ts'
import { mergeAdapter } from './merge-adapter.ts'
import { quantize } from './quantize.ts'

let folder: string
let base: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-merge-adapter-'))
  base = join(folder, 'base')
  await quantize({ model: tinyModel, out: base, bits: 4, offsets: true })
})
afterAll(() => rm(folder, { recursive: true }))

/** An adapter that changes something, on the base in 4 bits. */
async function adapter(name: string, dora: boolean): Promise<string> {
  const path = join(folder, name)
  const { model, parameters } = await loadForInference(base)
  const targetModules = ['q_proj', 'down_proj']
  const shapes = loraShapes(model, { rank: 2, targetModules, dora, maskEmbedding: false })
  const all = new Map([...initialLora(shapes, undefined, 3), ...(await initialMagnitudes(shapes, parameters))])
  for (const [name, { data }] of all) if (name.includes('lora_B')) random(1, 2).fillUniform(data)
  const config = { rank: 2, alpha: 3, targetModules, dora, base, modelConfig: { block_size: 4, mask_token_id: 259 } }
  await saveModelAdapter(path, { config, parameters: all })
  return path
}

describe.each([false, true])('an adapter on 4 bits (DoRA: %s)', (dora) => {
  it('is fused into float32', async () => {
    const path = await adapter(`float-${dora}`, dora)
    const out = join(folder, `float-whole-${dora}`)
    await mergeAdapter({ adapter: path, out })
    const [whole, small] = [await load(out), await loadForInference(path)]
    expect(whole.model.config).toMatchObject({ block_size: 4, mask_token_id: 259 })
    expect(whole.model.config).not.toHaveProperty('quantization_config')
    for (const [name, { data }] of whole.parameters) {
      const values = await floatValues(small.parameters.get(name)!)
      expect(Buffer.compare(new Uint8Array(values.buffer), new Uint8Array(data.buffer)), name).toBe(0)
    }
    expect(await adapterSummary(path)).toMatchObject({ method: dora ? 'DoRA' : 'LoRA', rank: 2, alpha: 3, base })
  })

  it('is rounded to the bits of its base again, in its format', async () => {
    const path = await adapter(`bits-${dora}`, dora)
    const out = join(folder, `bits-whole-${dora}`)
    await mergeAdapter({ adapter: path, out, bits: 4 })
    const [before, after] = [await openCheckpoint(base), await openCheckpoint(out)]
    const format = { bits: 4, blockSize: 32, asymmetric: false, offsets: true }
    for (const name of ['model.layers.0.self_attn.q_proj.weight', 'model.layers.0.self_attn.k_proj.weight'])
      expect(after.tensors.get(name)?.blocks).toEqual(format)
    // What the adapter does not change is taken over.
    const untouched = 'model.layers.0.self_attn.k_proj.weight'
    expect(await after.readQuantized(untouched)).toEqual(await before.readQuantized(untouched))
    await before.close()
    await after.close()
  })
})

it('refuses what is no adapter, and a type beside bits', async () => {
  const out = join(folder, 'none')
  await expect(mergeAdapter({ adapter: base, out })).rejects.toThrow('is not the folder of an adapter')
  const path = await adapter('both', false)
  await expect(mergeAdapter({ adapter: path, out, bits: 4, dtype: 'F16' })).rejects.toThrow('choose one')
  await expect(mergeAdapter({ adapter: path, out: path })).rejects.toThrow('is an input')
})
