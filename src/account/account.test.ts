import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { createModel } from '../models/index.ts'
import { accountOf } from './account.ts'
import { cardFiles, renderCard } from './card.ts'
import { updateFlops } from './flops.ts'
import { derivedRecord, lineage, readRecord, startRecord } from './record.ts'
import { costSettings } from './settings.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-account-'))
})
afterAll(() => rm(folder, { recursive: true }))

const prices = costSettings.parse({
  watts: 100,
  price_per_kwh: 0.5,
  price_per_hour: 2,
  co2_per_kwh: 0.5,
  currency: 'EUR',
})

describe('accountOf', () => {
  it('takes measured energy, and estimates it where there is none', () => {
    const spent = { tokens: 1000, flops: 1e12, seconds: 1800, joules: undefined }
    // 100 W for half an hour are 0.05 kWh.
    expect(accountOf(spent, prices)).toMatchObject({ joules: 180_000, energy: 'estimated', cost: 1.025, co2Kg: 0.025 })
    const measured = accountOf({ ...spent, joules: 3.6e6 }, prices)
    expect(measured).toMatchObject({ joules: 3.6e6, energy: 'measured', cost: 1.5, co2Kg: 0.5, currency: 'EUR' })
  })
})

describe('updateFlops', () => {
  const feeds = { input_ids: { shape: [2, 8] } }
  // Two layers of 32: q and o 32 * 32, k and v 16 * 32, gate, up and down 48 * 32.
  const layers = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32)

  it('is 6 N for each position, the head where something is predicted', () => {
    const { model } = tinyLlama()
    expect(updateFlops(model, undefined)({ feeds, counts: { loss_positions: 5 } })).toBe(
      6 * 16 * layers + 6 * 5 * 40 * 32,
    )
    expect(updateFlops(tinyLlama({ tie_word_embeddings: true }).model, undefined)({ feeds })).toBe(6 * 16 * layers)
  })

  it('is 4 N for weights that are not trained', () => {
    const { model } = tinyLlama()
    expect(updateFlops(model, 100)({ feeds, counts: { loss_positions: 5 } })).toBe(
      16 * (4 * layers + 600) + 4 * 5 * 40 * 32,
    )
    // An accelerator: the rows are run forward alone, the masks both ways.
    const strided = { feeds: { ...feeds, mask_positions: { shape: [2, 4] } }, counts: { loss_positions: 8 } }
    expect(updateFlops(model, 100)(strided)).toBe(16 * 2 * layers + 8 * (4 * layers + 600) + 4 * 8 * 40 * 32)
  })

  it('counts of experts those that a position goes to', () => {
    const config = {
      ...{ model_type: 'qwen3_moe', vocab_size: 40, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2 },
      ...{ num_key_value_heads: 2, head_dim: 16, moe_intermediate_size: 8, intermediate_size: 8, num_experts: 4 },
      ...{ num_experts_per_tok: 1, norm_topk_prob: true, max_position_embeddings: 64, decoder_sparse_step: 1 },
    }
    const used = 4 * 32 * 32 + 4 * 32 + 3 * 8 * 32
    expect(updateFlops(createModel(config), undefined)({ feeds })).toBe(6 * 16 * used)
  })
})

const modelFolder = async (name: string, card?: string) => {
  const path = join(folder, name)
  await mkdir(path, { recursive: true })
  await writeFile(join(path, 'config.json'), '{"model_type":"llama"}')
  await writeFile(join(path, 'model.safetensors'), 'weights')
  if (card !== undefined) await writeFile(join(path, 'README.md'), card)
  return path
}

const recordOf = async (path: string, name = path) => {
  const data = join(folder, 'data.jsonl')
  await writeFile(data, '{"text":"a"}\n')
  return startRecord({
    ...{ method: 'convert', command: 'unmask convert', threads: 2, base: { name, path }, data: [data], heldOut: [] },
    ...{ settings: { model: path, train: { lr: 1 } }, card: { datasets: ['openai/gsm8k'] } },
  })
}

describe('a record', () => {
  it('has the hashes of base, data and recipe, and no paths of this machine', async () => {
    const path = await modelFolder('base', '---\nlicense: Apache-2.0\n---\ntext')
    const record = await recordOf(path)
    const sha = (text: string) => createHash('sha256').update(text).digest('hex')
    // A path of two parts is no repository.
    const relative = (await recordOf(path, 'models/tiny')).base
    expect(relative).toMatchObject({ name: 'models/tiny', hub: undefined })
    expect(record.base).toMatchObject({ name: 'base', license: 'apache-2.0' })
    expect(record.base.files.map(({ name, sha256 }) => [name, sha256])).toEqual([
      ['config.json', sha('{"model_type":"llama"}')],
      ['model.safetensors', sha('weights')],
    ])
    expect(record.data).toEqual([{ name: 'data.jsonl', bytes: 13, sha256: sha('{"text":"a"}\n') }])
    expect(record.recipe.sha256).toBe(sha('{"model":"base","train":{"lr":1}}'))
    expect(record.license).toBe('apache-2.0')
    expect(JSON.stringify(record)).not.toContain(folder)
  })

  it('holds that of its base, so that a model says all steps', async () => {
    const base = await modelFolder('first', '---\nlicense: mit\n---\n')
    const first = {
      ...(await recordOf(base)),
      account: accountOf({ tokens: 9, flops: 1, seconds: 1, joules: 1 }, prices),
    }
    for (const [name, text] of Object.entries(cardFiles(first, { config: { model_type: 'llama' } })))
      await writeFile(join(base, name), text)
    expect(await readRecord(base)).toEqual(JSON.parse(JSON.stringify(first)))
    const second = await derivedRecord({
      ...{ method: 'quantize', command: 'unmask quantize', base: { name: base, path: base }, settings: {} },
      signal: undefined,
    })
    expect(lineage(second).map(({ method }) => method)).toEqual(['convert', 'quantize'])
    expect(second).toMatchObject({ license: 'mit', datasets: ['openai/gsm8k'] })
  })

  it.each([
    'no card',
    '---\nlicense: [a, b]\n---',
    '---\n: {{\n---',
    '---\nlicense: "a b\\nc"\n---',
    '---\n&a [*a]\n---',
  ])('takes no licence from %j', async (card) => {
    expect((await recordOf(await modelFolder('odd', card))).base.license).toBeUndefined()
  })

  it('that is damaged is refused by name', async () => {
    const path = await modelFolder('damaged')
    await writeFile(join(path, 'provenance.json'), '{"format":1,"base":[]}')
    await expect(readRecord(path)).rejects.toThrow(/provenance\.json: method, command, created, base, recipe/)
  })
})

describe('a card', () => {
  it('has a head that the Hub reads', async () => {
    const record = await recordOf(await modelFolder('hub', '---\nlicense: mit\n---'), 'owner/name@main')
    const card = renderCard(record, { config: { model_type: 'llama', mask_token_id: 3, block_size: 8 } })
    expect(parse(/^---\n([\s\S]*?)\n---\n/.exec(card)![1]!)).toEqual({
      license: 'mit',
      library_name: 'unmask',
      pipeline_tag: 'text-generation',
      tags: ['diffusion-language-model'],
      base_model: 'owner/name',
      base_model_relation: 'finetune',
      datasets: ['openai/gsm8k'],
    })
    expect(card).toContain('Nothing was measured on it yet.')
    expect(card).toContain(record.base.sha256)
  })

  it('stays a card whatever names and settings are', async () => {
    const record = await recordOf(await modelFolder('any'))
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (name, value) => {
        const card = renderCard(
          {
            ...record,
            command: value,
            base: { ...record.base, name },
            data: [{ name, bytes: 1, sha256: 'x' }],
            recipe: { sha256: 'x', settings: { [name]: value } },
            scores: [{ name, value, settings: name }],
          },
          { config: { model_type: 'llama' } },
        )
        const head = /^---\n([\s\S]*?)\n---\n/.exec(card)![1]!
        expect(Object.keys(parse(head))).toEqual(['license', 'library_name', 'pipeline_tag', 'tags', 'datasets'])
        expect(card.match(/^## /gm)!.length).toBeGreaterThanOrEqual(6)
        const recipe = /\n(`{3,})yaml\n([\s\S]*?)\n\1\n/.exec(card)![2]!
        expect(parse(recipe)).toEqual({ [name]: value })
      }),
      { examples: [['', '\n']] },
    )
  })
})
