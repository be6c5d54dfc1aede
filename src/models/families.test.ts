// What makes each family itself: its parameters, the settings that its config leaves unsaid, and what it does not know.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { logits } from '../../test/golden/logits.ts'
import { openCheckpoint, openSafetensors } from '../checkpoint/index.ts'
import { type ModelConfig, type Parameter, UserError } from '../core/types.ts'
import { decodeProgram } from '../decode/forward-program.ts'
import { exportOnnx } from '../graph/program.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createModel, parameterCounts, trainedConfig } from './index.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const total = (config: ModelConfig): number => parameterCounts(createModel(config)).total

/** Of a Qwen2 or Qwen3 shape. */
const sizes = (
  hidden_size: number,
  intermediate_size: number,
  num_hidden_layers: number,
  num_attention_heads: number,
  num_key_value_heads: number,
) => ({ hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads })

const dream7b: ModelConfig = {
  model_type: 'Dream',
  ...sizes(3584, 18944, 28, 28, 4),
  vocab_size: 152064,
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-6,
  rope_theta: 1_000_000,
  rope_scaling: null,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  use_sliding_window: false,
  mask_token_id: 151666,
}

const llada8b: ModelConfig = {
  model_type: 'llada',
  activation_type: 'silu',
  alibi: false,
  attention_layer_norm: false,
  bias_for_layer_norm: false,
  block_group_size: 1,
  block_type: 'llama',
  d_model: 4096,
  embedding_size: 126464,
  include_bias: false,
  include_qkv_bias: false,
  input_emb_norm: false,
  layer_norm_type: 'rms',
  mask_token_id: 126336,
  max_sequence_length: 4096,
  mlp_hidden_size: 12288,
  multi_query_attention: null,
  n_heads: 32,
  n_kv_heads: 32,
  n_layers: 32,
  rms_norm_eps: 1e-5,
  rope: true,
  rope_theta: 500000,
  scale_logits: false,
  vocab_size: 126464,
  weight_tying: false,
}

const llada2mini: ModelConfig = {
  model_type: 'llada2_moe',
  ...sizes(2048, 5120, 20, 16, 4),
  head_dim: 128,
  vocab_size: 157184,
  moe_intermediate_size: 512,
  num_experts: 256,
  num_experts_per_tok: 8,
  num_shared_experts: 1,
  first_k_dense_replace: 1,
  n_group: 8,
  topk_group: 4,
  routed_scaling_factor: 2.5,
  score_function: 'sigmoid',
  moe_router_enable_expert_bias: true,
  norm_topk_prob: true,
  rope_theta: 600000,
  partial_rotary_factor: 0.5,
}

const llada2flash: ModelConfig = {
  ...llada2mini,
  ...sizes(4096, 9216, 32, 32, 4),
  moe_intermediate_size: 1024,
}

const qwen3 = (config: object): ModelConfig => ({ model_type: 'qwen3', vocab_size: 151936, head_dim: 128, ...config })

const qwen3a3b: ModelConfig = {
  ...qwen3(sizes(2048, 6144, 48, 32, 4)),
  model_type: 'qwen3_moe',
  num_experts: 128,
  num_experts_per_tok: 8,
  moe_intermediate_size: 768,
  norm_topk_prob: true,
}

describe('a published config gives the published number of parameters', () => {
  const published: [name: string, config: ModelConfig, parameters: number][] = [
    [
      'Qwen2.5-0.5B',
      { model_type: 'qwen2', vocab_size: 151936, tie_word_embeddings: true, ...sizes(896, 4864, 24, 14, 2) },
      494_032_768,
    ],
    ['Qwen3-0.6B', qwen3({ tie_word_embeddings: true, ...sizes(1024, 3072, 28, 16, 8) }), 596_049_920],
    ['Qwen3-0.6B, untied', qwen3({ ...sizes(1024, 3072, 28, 16, 8) }), 751_632_384],
    ['Qwen3-8B', qwen3({ ...sizes(4096, 12288, 36, 32, 8) }), 8_190_735_360],
    ['LLaDA-8B', llada8b, 8_015_581_184],
    ['Dream-7B', dream7b, 7_615_616_512],
    [
      'SDAR-1.7B',
      { ...qwen3({ ...sizes(2048, 6144, 28, 16, 8) }), model_type: 'sdar', tie_word_embeddings: false },
      2_031_739_904,
    ],
    ['LLaDA2.0-mini', llada2mini, 16_255_643_392],
    ['LLaDA2.0-flash', llada2flash, 102_889_705_216],
    ['Ling-mini-2.0', { ...llada2mini, model_type: 'bailing_moe_v2' }, 16_255_643_392],
    ['Qwen3-30B-A3B', qwen3a3b, 30_532_122_624],
  ]
  it.each(published)('%s', (_, config, parameters) => {
    expect(total(config)).toBe(parameters)
  })
})

describe('a mixture of experts uses a part of its parameters for a position', () => {
  // inclusionAI gives 1.4B and, without embedding and head, 789M for mini, 6.1B for flash; Qwen 3.3B for its model.
  const published: [name: string, config: ModelConfig, active: number, withoutEmbeddings: number][] = [
    ['LLaDA2.0-mini', llada2mini, 1_432_973_056, 789_147_392],
    ['LLaDA2.0-flash', llada2flash, 6_152_277_760, 4_864_626_432],
    ['Qwen3-30B-A3B', qwen3a3b, 3_353_032_704, 2_730_702_848],
  ]
  it.each(published)('%s', (_, config, active, withoutEmbeddings) => {
    const counts = parameterCounts(createModel(config))
    expect(counts.active).toBe(active)
    expect(active - 2 * Number(config.vocab_size) * Number(config.hidden_size)).toBe(withoutEmbeddings)
  })

  it('and a dense model all of them', () => {
    const { total, active } = parameterCounts(createModel(dream7b))
    expect(active).toBe(total)
  })
})

describe('a trained model', () => {
  const ling: ModelConfig = {
    ...llada2mini,
    model_type: 'bailing_moe_v2',
    architectures: ['BailingMoeV2ForCausalLM'],
    auto_map: { AutoConfig: 'configuration_bailing_moe_v2.BailingMoeV2Config' },
    num_nextn_predict_layers: 1,
    mtp_loss_scaling_factor: 0,
  }

  it('of Ling is LLaDA2 once it is a diffusion model, without layers for multi-token prediction', () => {
    const { config, dropped } = trainedConfig(ling, 'diffusion')
    expect(config).toEqual({ ...llada2mini, architectures: ['LLaDA2MoeModelLM'] })
    expect(dropped).toBe('layers for multi-token prediction (num_nextn_predict_layers: 1)')
    expect(createModel(config).parameters).toEqual(createModel(ling).parameters)
    expect(trainedConfig({ ...ling, num_nextn_predict_layers: 0 }, 'diffusion').dropped).toBeUndefined()
  })

  it('stays what it is otherwise', () => {
    const { num_nextn_predict_layers: _, mtp_loss_scaling_factor: __, ...rest } = ling
    expect(trainedConfig(ling, 'ar').config).toEqual(rest)
    expect(trainedConfig(llada2mini, 'diffusion')).toEqual({ config: llada2mini })
    expect(trainedConfig(dream7b, 'diffusion')).toEqual({ config: dream7b })
  })

  it('in the layout of dFactory is LLaDA2', () => {
    const merged = { ...llada2mini, model_type: 'llada2_moe_veomni', auto_map: {} }
    expect(createModel(merged).config).toEqual({
      ...llada2mini,
      architectures: ['LLaDA2MoeModelLM'],
      mask_token_id: 156895,
      block_size: 32,
    })
  })
})

// Two layers with random weights; the logits are those of the authors' modeling code, or of transformers, in float32.
describe.each([
  ['llada', 'bidirectional'],
  ['qwen3-moe', 'causal'],
] as const)('%s', (name, attention) => {
  const folder = fileURLToPath(new URL(`../../test/models/${name}`, import.meta.url))

  it('gives the logits of the reference', async () => {
    const expected = await openSafetensors(`${folder}/logits.safetensors`)
    const { shape } = expected.tensors.get('input_ids')!
    const ids = await expected.read('input_ids')
    const reference = await expected.read(`logits.${attention}`)
    await expected.close()
    const checkpoint = await openCheckpoint(folder)
    const model = createModel(checkpoint.config)
    const weights = new Map<string, Parameter>()
    for (const [name, shape] of model.parameters) weights.set(name, { shape, data: await checkpoint.read(name) })
    expect([...checkpoint.tensors.keys()].sort()).toEqual([...model.parameters.keys()].sort())
    await checkpoint.close()

    const [rows, length] = shape as [number, number]
    const documents = new Int32Array(rows * length)
    const actual = await logits(executor, model, weights, attention, { rows, length, ids, documents })
    expect(actual.length).toBe(reference.length)
    const largest = Math.max(...reference.map(Math.abs))
    const error = Math.max(...reference.map((value, i) => Math.abs(value - actual[i]!)))
    expect(error / largest).toBeLessThan(1e-5)
  })
})

describe('LLaDA', () => {
  it('of several key heads a query, or with more rows than tokens, is that', () => {
    const { parameters, dimensions } = createModel({
      ...llada8b,
      n_kv_heads: 8,
      embedding_size: 126592,
      include_qkv_bias: true,
    })
    expect(parameters.get('model.transformer.blocks.31.k_proj.weight')).toEqual([1024, 4096])
    expect(parameters.get('model.transformer.blocks.31.k_proj.bias')).toEqual([1024])
    expect(parameters.has('model.transformer.blocks.31.attn_out.bias')).toBe(false)
    expect(parameters.get('model.transformer.ff_out.weight')).toEqual([126592, 4096])
    expect(dimensions).toMatchObject({ vocabSize: 126592, kvHeads: 8, headDim: 128, maxPositions: 4096 })
  })
})

describe('a family that continues another', () => {
  const golden = (folder: string): ModelConfig =>
    JSON.parse(readFileSync(fileURLToPath(new URL(`../../test/golden/${folder}/config.json`, import.meta.url)), 'utf8'))
  const program = (config: ModelConfig) => exportOnnx({ ...decodeProgram(createModel(config)), name: 'decode' }).model

  it.each([
    ['Dream', 'qwen2'],
    ['sdar', 'qwen3'],
  ])('%s computes what %s does', (family, base) => {
    const config = golden(base)
    expect(program({ ...config, model_type: family })).toEqual(program(config))
  })

  it('says in its config how it is decoded', () => {
    expect(createModel(dream7b).config).toMatchObject({ mask_token_id: 151666, same_token_labels: false })
    const sdar = { ...golden('qwen3'), model_type: 'sdar' }
    delete (sdar as Record<string, unknown>).mask_token_id
    expect(createModel(sdar).config).toMatchObject({ mask_token_id: 151669, block_size: 4 })
    expect(createModel({ ...sdar, mask_token_id: 7, block_size: 32 }).config).toMatchObject({
      mask_token_id: 7,
      block_size: 32,
    })
    expect(createModel(llada2mini).config).toMatchObject({ mask_token_id: 156895, block_size: 32 })
    expect(createModel({ ...llada2mini, mask_token_id: 9 }).config).toEqual({ ...llada2mini, mask_token_id: 9 })
    expect(createModel({ ...llada2mini, model_type: 'bailing_moe_v2' }).config.mask_token_id).toBeUndefined()
    for (const config of [llada8b, { ...sdar, model_type: 'qwen3' }]) expect(createModel(config).config).toEqual(config)
  })
})

describe('a setting that no family member has is refused', () => {
  const bad: [ModelConfig, string][] = [
    [{ ...dream7b, use_sliding_window: true }, 'use_sliding_window must be false (others are not supported), got true'],
    [{ ...qwen3(sizes(64, 64, 1, 2, 2)), use_sliding_window: true }, 'use_sliding_window must be false'],
    [{ ...llada8b, block_type: 'sequential' }, 'block_type must be "llama" (others are not supported)'],
    [{ ...llada8b, include_bias: true }, 'include_bias must be false'],
    [{ ...llada8b, activation_type: 'gelu' }, 'activation_type must be one of silu, swish, got "gelu"'],
    [{ ...llada8b, d_model: 100 }, 'n_heads (32) must divide d_model (100)'],
    [{ ...llada8b, n_kv_heads: 5 }, 'n_kv_heads (5) must divide n_heads (32)'],
    [{ ...llada2mini, topk_group: 9 }, 'topk_group (9) must not be more than n_group (8)'],
    [{ ...llada2mini, n_group: 3 }, 'n_group (3) must divide num_experts (256)'],
    [{ ...llada2mini, num_experts_per_tok: 200 }, 'num_experts_per_tok (200) must not be more than the 128 experts'],
    [{ ...llada2mini, num_experts: 1e9 }, 'num_experts must be a whole number from 1 to 4096'],
    [{ ...llada2mini, score_function: 'softmax' }, 'score_function must be "sigmoid"'],
    [{ ...llada8b, mlp_hidden_size: null }, 'mlp_hidden_size must be a whole number'],
  ]
  it.each(bad)('%#: %s', (config, message) => {
    expect(() => createModel(config)).toThrow(UserError)
    expect(() => createModel(config)).toThrow(`config.json: ${message}`)
  })
})
