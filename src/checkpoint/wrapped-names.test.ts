// Files whose tensors have the names of wrappers, and folders of shards: what is read of them, and what is said of the rest.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it, test } from 'vitest'
import type { ModelConfig, Parameter } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { openCheckpoint } from './huggingface.ts'
import { checkTensors } from './load.ts'
import { openSafetensors } from './safetensors.ts'
import { writeSafetensors } from './safetensors-write.ts'
import { unwrapNames } from './wrapped-names.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-names-'))
})

const parameters = (names: readonly string[]) =>
  new Map<string, Parameter>(names.map((name, i) => [name, { shape: [1], data: Float32Array.of(i) }]))

async function unwrapped(names: readonly string[]) {
  const path = join(folder, 'a.safetensors')
  await writeSafetensors(path, parameters(names))
  const opened = await openSafetensors(path)
  try {
    const file = unwrapNames(opened)
    const found = [...file.tensors.keys()]
    for (const name of found) {
      expect((await file.read(name)).length).toBe(1)
      expect((await file.readRaw(name)).shape).toEqual([1])
    }
    return found.sort()
  } finally {
    await opened.close()
  }
}

const plain = ['lm_head.weight', 'model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.weight']

test.each([
  ['as they are', (name: string) => name],
  ['of torch.compile', (name: string) => `_orig_mod.${name}`],
  ['of torch.compile, layer by layer', (name: string) => name.replace('layers.0.', 'layers.0._orig_mod.')],
  ['of DistributedDataParallel', (name: string) => `module.${name}`],
  ['of both', (name: string) => `module._orig_mod.${name}`],
  [
    'of FSDP and checkpointing',
    (name: string) => `_fsdp_wrapped_module.${name.replace('mlp.', '_checkpoint_wrapped_module.mlp.')}`,
  ],
  ['of PEFT, merged', (name: string) => `base_model.model.${name}`],
])('names %s', async (_, wrap) => {
  expect(await unwrapped(plain.map(wrap))).toEqual(plain)
})

test('a decoder saved without its head has the names of one with it', async () => {
  expect(await unwrapped(['embed_tokens.weight', 'layers.0.mlp.up_proj.weight', 'norm.weight'])).toEqual([
    'model.embed_tokens.weight',
    'model.layers.0.mlp.up_proj.weight',
    'model.norm.weight',
  ])
})

test('a name that only some have is no wrapper', async () => {
  expect(await unwrapped(['module.a', 'b'])).toEqual(['b', 'module.a'])
})

test('two tensors of one name, and an adapter that is not merged, are errors', async () => {
  await expect(unwrapped(['a._orig_mod.b', 'a.b'])).rejects.toThrow(/are both a.b without their wrappers/)
  await expect(unwrapped(['base_model.model.model.layers.0.q_proj.lora_A.weight'])).rejects.toThrow(
    /adapter that is not merged; merge it first/,
  )
})

const config: ModelConfig = {
  model_type: 'llama',
  ...{ hidden_size: 2, intermediate_size: 2, num_hidden_layers: 1, num_attention_heads: 1, vocab_size: 4 },
  max_position_embeddings: 8,
}

async function modelFolder(files: Record<string, readonly string[]>, settings: object = config) {
  const path = await mkdtemp(join(folder, 'model-'))
  await writeFile(join(path, 'config.json'), JSON.stringify(settings))
  for (const [name, tensors] of Object.entries(files)) await writeSafetensors(join(path, name), parameters(tensors))
  return path
}

test('an unknown prefix is named, with what to do', async () => {
  const names = [...createModel(config).parameters.keys()].map((name) => `student.${name}`)
  const checkpoint = await openCheckpoint(await modelFolder({ 'model.safetensors': names }))
  expect(() => checkTensors(checkpoint, createModel(config))).toThrow(
    /are missing: model.embed_tokens.weight.*; there is student.model.embed_tokens.weight: take "student\." from the names/,
  )
  await checkpoint.close()
})

describe('folders of shards without an index', () => {
  const shard = (i: number) => `model-0000${i}-of-00002.safetensors`

  it('are one model where all are there', async () => {
    const checkpoint = await openCheckpoint(await modelFolder({ [shard(1)]: ['a'], [shard(2)]: ['b'] }))
    expect([...checkpoint.tensors.keys()].sort()).toEqual(['a', 'b'])
    await checkpoint.close()
  })

  it('say which are missing', async () => {
    await expect(openCheckpoint(await modelFolder({ [shard(2)]: ['b'] }))).rejects.toThrow(
      /1 of 2 shards are missing: model-00001-of-00002.safetensors/,
    )
  })
})

test('a folder of an adapter says what it is', async () => {
  const path = await modelFolder({ 'adapter_model.safetensors': ['x'] })
  await writeFile(join(path, 'adapter_config.json'), '{}')
  await rm(join(path, 'config.json'))
  await expect(openCheckpoint(path)).rejects.toThrow(/holds an adapter, not the weights of a model/)
})
