// GGUF files of the dense families: the config, names and rows that the models of these families ask for.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compareTensors, openCheckpoint } from '../src/checkpoint/index.ts'
import { createModel } from '../src/models/index.ts'
import { float32Tensor, ggufFile, smallLlama, type TensorEntry, type Value } from './checkpoint/gguf-file.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-gguf-'))
})
afterAll(() => rm(folder, { recursive: true }))
const at = (name: string): string => join(folder, name)

describe('each dense architecture in GGUF', () => {
  /** The small Llama's settings as another architecture names them. */
  const settings = (architecture: string): Record<string, Value> => ({
    ...Object.fromEntries(
      Object.entries(smallLlama.metadata).map(([key, value]) => [key.replace(/^llama\./, `${architecture}.`), value]),
    ),
    'general.architecture': { string: architecture },
  })
  const bias = (names: string[]) => names.map((name, n) => float32Tensor(`blk.0.${name}.bias`, [n ? 4 : 8], () => 0))
  const headNorms = ['attn_q_norm', 'attn_k_norm'].map((name) => float32Tensor(`blk.0.${name}.weight`, [4], () => 1))
  const mask = { 'tokenizer.ggml.mask_token_id': { u32: 7 } }
  const families: {
    architecture: string
    extra?: TensorEntry[]
    metadata?: Record<string, Value>
    config: Record<string, unknown>
    queries: string
    reordered: boolean
  }[] = [
    {
      architecture: 'qwen2',
      extra: bias(['attn_q', 'attn_k', 'attn_v']),
      metadata: mask,
      // Only diffusion models are read as such: others may have a mask token that means nothing to them.
      config: { model_type: 'qwen2', architectures: ['Qwen2ForCausalLM'] },
      queries: 'model.layers.0.self_attn.q_proj.weight',
      reordered: false,
    },
    {
      architecture: 'qwen3',
      extra: headNorms,
      config: { model_type: 'qwen3', architectures: ['Qwen3ForCausalLM'], head_dim: 4 },
      queries: 'model.layers.0.self_attn.q_proj.weight',
      reordered: false,
    },
    {
      architecture: 'dream',
      extra: bias(['attn_q', 'attn_k', 'attn_v']),
      metadata: mask,
      config: { model_type: 'Dream', architectures: ['DreamModel'], mask_token_id: 7 },
      queries: 'model.layers.0.self_attn.q_proj.weight',
      reordered: false,
    },
    {
      architecture: 'llada',
      extra: [float32Tensor('output.weight', [20, 8], () => 1)],
      metadata: { ...mask, 'diffusion.shift_logits': { bool: false } },
      config: {
        model_type: 'llada',
        architectures: ['LLaDAModelLM'],
        mask_token_id: 7,
        same_token_labels: true,
        d_model: 8,
        mlp_hidden_size: 16,
        n_kv_heads: 1,
        max_sequence_length: 128,
        weight_tying: false,
        eos_token_id: 1,
      },
      queries: 'model.transformer.blocks.0.q_proj.weight',
      reordered: true,
    },
  ]

  it.each(families)(
    '$architecture',
    async ({ architecture, extra = [], metadata = {}, config, queries, reordered }) => {
      const tensors = [...smallLlama.tensors, ...extra]
      await writeFile(at('family.gguf'), ggufFile({ ...settings(architecture), ...metadata }, tensors))
      const checkpoint = await openCheckpoint(at('family.gguf'))
      expect(checkpoint.config).toMatchObject(config)
      expect(checkpoint.config.mask_token_id).toBe(config.mask_token_id)
      // The names and shapes are those of the model, one by one.
      const { parameters } = createModel(checkpoint.config)
      expect(compareTensors(checkpoint, parameters)).toEqual({ missing: [], unexpected: [], wrongShape: [] })
      const rows = [...(await checkpoint.read(queries))]
        .filter((_, i) => i % 8 === 0)
        .map((value) => (value - 3000) / 8)
      expect(rows).toEqual(reordered ? [0, 2, 1, 3, 4, 6, 5, 7] : [0, 1, 2, 3, 4, 5, 6, 7])
      await checkpoint.close()
    },
  )

  it('dream may say that it predicts without a shift', async () => {
    const metadata = { ...settings('dream'), 'diffusion.shift_logits': { bool: false } }
    await writeFile(at('dream.gguf'), ggufFile(metadata, smallLlama.tensors))
    const checkpoint = await openCheckpoint(at('dream.gguf'))
    await checkpoint.close()
    expect(createModel(checkpoint.config).config.same_token_labels).toBe(true)
  })
})
