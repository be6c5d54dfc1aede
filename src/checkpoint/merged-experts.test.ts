// Layouts with the experts of a layer in one tensor: read as single ones, value by value, and refused where they make no sense.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Parameter } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { openCheckpoint, saveCheckpoint } from './index.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-merged-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function readAll(path: string): Promise<Map<string, Parameter>> {
  const checkpoint = await openCheckpoint(path)
  try {
    const all = new Map<string, Parameter>()
    for (const { name, shape } of checkpoint.tensors.values())
      all.set(name, { shape, data: await checkpoint.read(name) })
    return all
  } finally {
    await checkpoint.close()
  }
}

/** Joins the matrices of all experts, `matrices` of each side by side along the rows. */
function merge(
  single: ReadonlyMap<string, Parameter>,
  into: string,
  matrices: readonly string[],
): Map<string, Parameter> {
  const merged = new Map<string, { parts: Float32Array[]; shape: readonly number[] }>()
  const all = new Map<string, Parameter>()
  for (const [name, value] of single) {
    const [, layer, expert, matrix] = /^(.+\.experts)\.(\d+)\.(\w+)\.weight$/.exec(name) ?? []
    if (layer === undefined || !matrices.includes(matrix!)) {
      all.set(name, value)
      continue
    }
    const entry = merged.get(`${layer}.${into}`) ?? { parts: [], shape: value.shape }
    entry.parts[Number(expert) * matrices.length + matrices.indexOf(matrix!)] = value.data
    merged.set(`${layer}.${into}`, entry)
  }
  for (const [name, { parts, shape }] of merged) {
    const data = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0))
    let at = 0
    for (const part of parts) {
      data.set(part, at)
      at += part.length
    }
    all.set(name, { shape: [parts.length / matrices.length, shape[0] * matrices.length, shape[1]], data })
  }
  return all
}

const single = { llada2: '../../test/golden/llada2-moe', qwen3: '../../test/models/qwen3-moe' }

const layouts: [
  name: string,
  source: string,
  modelType: string,
  merge: (from: Map<string, Parameter>) => Map<string, Parameter>,
][] = [
  [
    'of dFactory',
    single.llada2,
    'llada2_moe_veomni',
    (from) => ['gate_proj', 'up_proj', 'down_proj'].reduce((all, matrix) => merge(all, matrix, [matrix]), from),
  ],
  [
    'of transformers',
    single.qwen3,
    'qwen3_moe',
    (from) => merge(merge(from, 'gate_up_proj', ['gate_proj', 'up_proj']), 'down_proj', ['down_proj']),
  ],
]

describe.each(layouts)('the layout %s', (_, source, modelType, merged) => {
  const path = fileURLToPath(new URL(source, import.meta.url))
  const save = async (name: string, parameters: Map<string, Parameter>, maxShardBytes: number) => {
    const checkpoint = await openCheckpoint(path)
    const config = { ...checkpoint.config, model_type: modelType }
    await checkpoint.close()
    await saveCheckpoint(join(folder, name), { config, parameters, maxShardBytes })
    return join(folder, name)
  }

  it('holds the tensors of the usual one', async () => {
    const expected = await readAll(path)
    const parameters = merged(expected)
    expect(parameters.size).toBeLessThan(expected.size)
    const saved = await save(modelType, parameters, 200_000)
    const actual = await readAll(saved)
    expect(new Map([...actual].sort())).toEqual(new Map([...expected].sort()))

    // Ranges of the file, to be mapped, begin where the values do.
    const checkpoint = await openCheckpoint(saved)
    const name = 'model.layers.1.mlp.experts.3.up_proj.weight'
    const mapped = await checkpoint.map(name)
    await checkpoint.close()
    if (!mapped || !('data' in mapped.file)) throw new Error('not mapped')
    const { path: file, offset, length } = mapped.file.data
    const bytes = await readFile(file)
    expect(new Float32Array(new Uint8Array(bytes.subarray(offset, offset + length)).buffer)).toEqual(
      expected.get(name)!.data,
    )
    // The model that it becomes has the usual layout and says so.
    const config = { ...checkpoint.config }
    const model = createModel(config)
    expect([...model.parameters.keys()].sort()).toEqual([...expected.keys()].sort())
    expect(model.config.model_type).toBe(modelType.replace('_veomni', ''))
  })

  it.each([
    ['two sizes', [4, 4], 'it does not have three dimensions'],
    ['no values', [4, 0, 4], 'it does not have three dimensions'],
    ['too many experts', [5000, 2, 1], 'from 1 to 4096 experts can be read'],
  ])('is refused with %s', async (name, shape, message) => {
    const tensor = 'model.layers.1.mlp.experts.gate_proj'
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1))
    const bad = await save(`${modelType}-${name}`, new Map([[tensor, { shape, data }]]), 1e9)
    await expect(openCheckpoint(bad)).rejects.toThrow(`tensor ${tensor}: [${shape.join(', ')}] is not`)
    await expect(openCheckpoint(bad)).rejects.toThrow(message)
  })
})

it('refuses an expert that is there twice, and leaves other families as they are', async () => {
  const [merged, alone] = ['model.layers.0.mlp.experts.up_proj', 'model.layers.0.mlp.experts.1.up_proj.weight']
  const values = (shape: number[]) => ({ shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)) })
  const parameters = new Map([
    [merged, values([2, 2, 2])],
    [alone, values([2, 2])],
  ])
  const path = join(folder, 'twice')
  await saveCheckpoint(path, { config: { model_type: 'llada2_moe' }, parameters })
  await expect(openCheckpoint(path)).rejects.toThrow(`tensor ${alone} is there twice`)
  await writeFile(join(path, 'config.json'), JSON.stringify({ model_type: 'gpt_oss' }))
  const checkpoint = await openCheckpoint(path)
  expect([...checkpoint.tensors.keys()].sort()).toEqual([alone, merged].sort())
  await checkpoint.close()
})
