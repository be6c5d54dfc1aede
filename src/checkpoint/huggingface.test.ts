import { lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { float32Tensor, ggufFile, smallLlama, type TensorEntry, type Value } from '../../test/checkpoint/gguf-file.ts'
import { type Parameter, UserError } from '../core/types.ts'
import { inspectCheckpoint, openCheckpoint, type SaveOptions, saveCheckpoint } from './index.ts'
import { llama3Divisors } from './llama3-rope.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-checkpoint-'))
})
afterAll(() => rm(folder, { recursive: true }))
const at = (...names: string[]): string => join(folder, ...names)

const gguf = async (metadata: Record<string, Value> = {}, tensors: readonly TensorEntry[] = []): Promise<string> => {
  const replaced = new Map([...smallLlama.tensors, ...tensors].map((tensor) => [tensor.name, tensor]))
  await writeFile(at('a.gguf'), ggufFile({ ...smallLlama.metadata, ...metadata }, [...replaced.values()]))
  return at('a.gguf')
}

const configOf = async (path: string) => {
  const checkpoint = await openCheckpoint(path)
  await checkpoint.close()
  return checkpoint.config
}

describe('a llama in GGUF', () => {
  it('has a Hugging Face config', async () => {
    expect(await configOf(await gguf())).toEqual({
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      hidden_act: 'silu',
      hidden_size: 8,
      intermediate_size: 16,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 4,
      rms_norm_eps: 1e-5,
      rope_theta: 100000,
      rope_scaling: null,
      max_position_embeddings: 128,
      vocab_size: 20,
      tie_word_embeddings: true,
      attention_bias: false,
      mlp_bias: false,
      bos_token_id: 0,
      eos_token_id: 1,
      pad_token_id: 2,
    })
  })

  it('has Hugging Face names, and unknown tensors under their own', async () => {
    const extra = float32Tensor('blk.0.attn_sinks.weight', [2], () => 0)
    const checkpoint = await openCheckpoint(await gguf({}, [extra]))
    expect([...checkpoint.tensors.keys()].sort()).toEqual(
      [
        'blk.0.attn_sinks.weight',
        'model.embed_tokens.weight',
        'model.norm.weight',
        ...['input_layernorm', 'post_attention_layernorm'].map((name) => `model.layers.0.${name}.weight`),
        ...['q', 'k', 'v', 'o'].map((name) => `model.layers.0.self_attn.${name}_proj.weight`),
        ...['gate', 'up', 'down'].map((name) => `model.layers.0.mlp.${name}_proj.weight`),
      ].sort(),
    )
    await expect(checkpoint.read('token_embd.weight')).rejects.toThrow(/no tensor "token_embd.weight"/)
    await checkpoint.close()
  })

  it('has the rows of query and key projections where Hugging Face has them', async () => {
    // Row r of the Hugging Face matrix holds r; llama.cpp's converter reshapes the rows [heads, 2, d/2] and swaps.
    const rows = (heads: number) => Array.from({ length: heads }, (_, h) => [0, 2, 1, 3].map((r) => 4 * h + r)).flat()
    const tensors = [
      float32Tensor('blk.0.attn_q.weight', [8, 8], (i) => rows(2)[Math.floor(i / 8)]! + (i % 8) / 8),
      float32Tensor('blk.0.attn_k.weight', [4, 8], (i) => rows(1)[Math.floor(i / 8)]! + (i % 8) / 8),
      float32Tensor('blk.0.attn_q.bias', [8], (i) => rows(2)[i]!),
    ]
    const checkpoint = await openCheckpoint(await gguf({}, tensors))
    expect(checkpoint.config.attention_bias).toBe(true)
    for (const name of ['q_proj.weight', 'k_proj.weight'])
      expect((await checkpoint.read(`model.layers.0.self_attn.${name}`)).every((value, i) => value === i / 8)).toBe(
        true,
      )
    expect([...(await checkpoint.read('model.layers.0.self_attn.q_proj.bias'))]).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
    const values = await checkpoint.read('model.layers.0.self_attn.v_proj.weight')
    expect(values.every((value, i) => value === 5000 + i)).toBe(true)
    await checkpoint.close()
  })

  it('has a head of its own where there is one', async () => {
    const config = await configOf(await gguf({}, [float32Tensor('output.weight', [20, 8], () => 1)]))
    expect(config.tie_word_embeddings).toBe(false)
  })

  it('has rope scaling from settings', async () => {
    const type = (string: string) => ({ 'llama.rope.scaling.type': { string } })
    const factor = { 'llama.rope.scaling.factor': { f32: 2.5 } }
    expect((await configOf(await gguf({ ...type('none'), ...factor }))).rope_scaling).toBeNull()
    expect((await configOf(await gguf({ ...type('linear'), ...factor }))).rope_scaling).toEqual({
      rope_type: 'linear',
      factor: 2.5,
    })
    const original = { 'llama.rope.scaling.original_context_length': { u32: 64 } }
    expect((await configOf(await gguf({ ...type('yarn'), ...factor, ...original }))).rope_scaling).toEqual({
      rope_type: 'yarn',
      factor: 2.5,
      original_max_position_embeddings: 64,
    })
  })

  it('has the rope scaling that llama.cpp takes where settings are missing or old', async () => {
    const scaling = async (metadata: Record<string, Value>) => (await configOf(await gguf(metadata))).rope_scaling
    const linear = { rope_type: 'linear', factor: 4 }
    expect(await scaling({ 'llama.rope.scaling.factor': { f32: 4 } })).toEqual(linear)
    expect(await scaling({ 'llama.rope.scale_linear': { f32: 4 } })).toEqual(linear)
    expect(await scaling({ 'llama.rope.scaling.factor': { u8: 4 } })).toEqual(linear)
    expect(await scaling({ 'llama.rope.scaling.type': { string: 'linear' } })).toBeNull()
    expect(await scaling({ 'llama.rope.scaling.factor': { f32: 0 } })).toBeNull()
    expect(await scaling({ 'llama.rope.scaling.factor': { f32: 1 } })).toBeNull()
  })

  it('has numbers of any width, floats that are integers, and lists with one value for every layer', async () => {
    const expected = await configOf(await gguf())
    const written: Record<string, Value>[] = [
      { 'llama.embedding_length': { u64: 8n }, 'llama.context_length': { i64: 128n } },
      { 'llama.rope.freq_base': { u32: 100000 }, 'llama.block_count': { u8: 1 } },
      { 'llama.attention.head_count': { f32: 2 }, 'llama.feed_forward_length': { i16: 16 } },
      { 'llama.attention.head_count': { list: [{ i32: 2 }] }, 'llama.attention.head_count_kv': { list: [{ u32: 1 }] } },
      { 'llama.attention.value_length': { u32: 4 }, 'llama.attention.layer_norm_rms_epsilon': { f64: 1e-5 } },
    ]
    for (const metadata of written) expect(await configOf(await gguf(metadata))).toEqual(expected)
  })

  it('has no token where the file says -1 or the largest number', async () => {
    const none = { 'tokenizer.ggml.padding_token_id': { i32: -1 } }
    expect(await configOf(await gguf(none))).not.toHaveProperty('pad_token_id')
  })

  it('has Llama 3 rope scaling from its divisors', async () => {
    const scaling = {
      rope_type: 'llama3' as const,
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    }
    const divisors = llama3Divisors(scaling, 4, 1e8)
    const factors = float32Tensor('rope_freqs.weight', [2], (i) => divisors[i]!)
    const checkpoint = await openCheckpoint(await gguf({ 'llama.rope.freq_base': { f32: 1e8 } }, [factors]))
    expect(checkpoint.config.rope_scaling).toEqual(scaling)
    expect(checkpoint.tensors.has('rope_freqs.weight')).toBe(false)
    await checkpoint.close()
    const other = float32Tensor('rope_freqs.weight', [2], (i) => 3 - i)
    await expect(openCheckpoint(await gguf({}, [other]))).rejects.toThrow(/"rope_freqs.weight".*not a Llama 3/)
  })

  const cases: [string, Record<string, Value>, TensorEntry[], RegExp][] = [
    ['another architecture', { 'general.architecture': { string: 'mamba' } }, [], /"mamba" is not supported.*llama/],
    ['parts', { 'split.count': { u16: 3 } }, [], /one of 3 parts/],
    ['experts', { 'llama.expert_count': { u32: 8 } }, [], /experts/],
    ['no heads', { 'llama.attention.head_count': { u32: 0 } }, [], /"llama.attention.head_count": 0 is not a positive/],
    ['heads of no whole size', { 'llama.attention.head_count': { u32: 3 } }, [], /3 heads of an embedding of 8/],
    ['text for a number', { 'llama.block_count': { string: '1' } }, [], /"llama.block_count": expected a number/],
    ['partly rotated heads', { 'llama.rope.dimension_count': { u32: 2 } }, [], /dimension_count": 2 of 4/],
    ['unknown rope scaling', { 'llama.rope.scaling.type': { string: 'longrope' } }, [], /"longrope" is not supported/],
    ['a negative factor', { 'llama.rope.scaling.factor': { f32: -2 } }, [], /scaling.factor": -2 is below 0/],
    [
      'heads that differ between layers',
      { 'llama.block_count': { u32: 2 }, 'llama.attention.head_count_kv': { list: [{ u32: 1 }, { u32: 2 }] } },
      [],
      /head_count_kv": differs from layer to layer/,
    ],
    [
      'a list shorter than the layers',
      { 'llama.block_count': { u32: 2 }, 'llama.feed_forward_length': { list: [{ u32: 16 }] } },
      [],
      /feed_forward_length": 1 values for 2 layers/,
    ],
    ['values of another size than keys', { 'llama.attention.value_length': { u32: 8 } }, [], /value_length": 8, where/],
    [
      'an architecture that is no text',
      { 'general.architecture': { u64: 2n ** 60n } },
      [],
      /architecture": expected a string/,
    ],
    [
      'a projection of other heads',
      {},
      [float32Tensor('blk.0.attn_q.weight', [6, 8], () => 0)],
      /"blk.0.attn_q.weight": 6 rows/,
    ],
    ['an embedding that is no matrix', {}, [float32Tensor('token_embd.weight', [8], () => 0)], /token_embd.weight/],
    ['two tensors of one name', {}, [float32Tensor('model.norm.weight', [8], () => 0)], /are both model.norm.weight/],
  ]
  it.each(cases)('is refused with %s', async (_, metadata, tensors, message) => {
    const error = await openCheckpoint(await gguf(metadata, tensors)).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
  })

  it('is refused without a setting it needs', async () => {
    const { 'llama.context_length': _, ...metadata } = smallLlama.metadata
    await writeFile(at('a.gguf'), ggufFile(metadata, smallLlama.tensors))
    await expect(openCheckpoint(at('a.gguf'))).rejects.toThrow(/a.gguf: metadata "llama.context_length" is missing/)
  })
})

const options = (scale = 1): SaveOptions & { parameters: Map<string, Parameter> } => ({
  config: { model_type: 'llama', architectures: ['LlamaForCausalLM'], mask_token_id: 3 },
  parameters: new Map([
    ['model.embed_tokens.weight', { shape: [4, 2], data: Float32Array.from({ length: 8 }, (_, i) => i * scale) }],
    ['model.norm.weight', { shape: [2], data: Float32Array.of(scale, 0.1) }],
  ]),
  tokenizerFiles: {
    'tokenizer.json': JSON.stringify({
      added_tokens: [{ id: 2, content: '<s>' }],
      model: { type: 'BPE', vocab: { a: 0, b: 1 }, merges: [] },
    }),
    'tokenizer_config.json': '{"chat_template":"x"}',
  },
  generationConfig: { eos_token_id: 2 },
})

describe('saving', () => {
  it('gives back what was saved', async () => {
    const saved = options()
    await saveCheckpoint(at('new', 'model'), saved)
    const checkpoint = await openCheckpoint(at('new', 'model'))
    expect(checkpoint).toMatchObject({
      format: 'safetensors',
      config: { ...saved.config, torch_dtype: 'float32' },
      generationConfig: saved.generationConfig,
    })
    expect(await checkpoint.tokenizerFiles()).toEqual(saved.tokenizerFiles)
    for (const [name, { shape, data }] of saved.parameters) {
      expect(checkpoint.tensors.get(name)!.shape).toEqual(shape)
      expect(await checkpoint.read(name)).toEqual(data)
    }
    await checkpoint.close()
    expect(await readdir(at('new'))).toEqual(['model'])
  })

  it('converts GGUF, quantised weights and all, without holding the model', async () => {
    const source = await openCheckpoint(await gguf())
    const parameters = new Map(
      [...source.tensors].map(([name, { shape }]) => [name, { shape, read: () => source.read(name) }]),
    )
    await saveCheckpoint(at('converted'), {
      config: source.config,
      parameters,
      tokenizerFiles: await source.tokenizerFiles(),
      dtype: 'BF16',
      maxShardBytes: 400,
    })
    const checkpoint = await openCheckpoint(at('converted'))
    expect(checkpoint.config).toEqual({ ...source.config, torch_dtype: 'bfloat16' })
    expect([...checkpoint.tensors.keys()].sort()).toEqual([...source.tensors.keys()].sort())
    const values = await source.read('model.layers.0.mlp.gate_proj.weight')
    const stored = await checkpoint.read('model.layers.0.mlp.gate_proj.weight')
    expect(stored.every((value, i) => Math.abs(value / values[i]! - 1) <= 2 ** -8)).toBe(true)
    await source.close()
    await checkpoint.close()
  })

  it('replaces a checkpoint, shards included, and keeps what else is in its folder', async () => {
    await saveCheckpoint(at('replaced'), { ...options(), maxShardBytes: 16 })
    await writeFile(at('replaced', 'notes.md'), 'mine')
    await mkdir(at('replaced', 'run'))
    await writeFile(at('replaced', 'run', 'metrics.jsonl'), '{}')
    await saveCheckpoint(at('replaced'), { config: { model_type: 'llama' }, parameters: options(3).parameters })
    expect((await readdir(at('replaced'))).sort()).toEqual(['config.json', 'model.safetensors', 'notes.md', 'run'])
    expect(await readFile(at('replaced', 'run', 'metrics.jsonl'), 'utf8')).toBe('{}')
    const checkpoint = await openCheckpoint(at('replaced'))
    expect(await checkpoint.read('model.norm.weight')).toEqual(Float32Array.of(3, 0.1))
    await checkpoint.close()
  })

  it('replaces the checkpoint that it reads from', async () => {
    await saveCheckpoint(at('itself'), options(2))
    const source = await openCheckpoint(at('itself'))
    const parameters = new Map(
      [...source.tensors].map(([name, { shape }]) => [name, { shape, read: () => source.read(name) }]),
    )
    await saveCheckpoint(at('itself'), { config: source.config, parameters })
    await source.close()
    const checkpoint = await openCheckpoint(at('itself'))
    expect(await checkpoint.read('model.norm.weight')).toEqual(Float32Array.of(2, 0.1))
    await checkpoint.close()
  })

  it('does not touch a folder that holds something else, nor a file', async () => {
    await mkdir(at('other'))
    await writeFile(at('other', 'config.json'), '{}')
    await expect(saveCheckpoint(at('other'), options())).rejects.toThrow(/other: exists and holds no checkpoint/)
    expect(await readdir(at('other'))).toEqual(['config.json'])
    await writeFile(at('plain'), 'x')
    await expect(saveCheckpoint(at('plain'), options())).rejects.toThrow(/plain: is a file/)
  })

  it('replaces what a link points to', async () => {
    await saveCheckpoint(at('linked'), options())
    await symlink(at('linked'), at('link'))
    await saveCheckpoint(at('link'), options(5))
    expect((await lstat(at('link'))).isSymbolicLink()).toBe(true)
    const checkpoint = await openCheckpoint(at('linked'))
    expect(await checkpoint.read('model.norm.weight')).toEqual(Float32Array.of(5, 0.1))
    await checkpoint.close()
  })

  it('fills an empty folder', async () => {
    await mkdir(at('empty'))
    await saveCheckpoint(at('empty'), options())
    expect(await readdir(at('empty'))).toContain('model.safetensors')
  })

  it('leaves the old checkpoint and nothing else behind when it fails', async () => {
    await saveCheckpoint(at('kept', 'model'), options())
    const broken = new Map([['a', { shape: [1], read: () => Promise.reject(new Error('lost')) }]])
    await expect(saveCheckpoint(at('kept', 'model'), { ...options(), parameters: broken })).rejects.toThrow('lost')
    expect(await readdir(at('kept'))).toEqual(['model'])
    await (await openCheckpoint(at('kept', 'model'))).close()
  })

  it('refuses files that are no tokenizer files', async () => {
    const tokenizerFiles = { '../escape.json': '{}' }
    await expect(saveCheckpoint(at('escape'), { ...options(), tokenizerFiles })).rejects.toThrow(UserError)
  })
})

describe('opening', () => {
  it('takes a .safetensors file, an index, a .gguf file or a folder with one', async () => {
    await saveCheckpoint(at('forms'), { ...options(), maxShardBytes: 16 })
    await (await openCheckpoint(at('forms', 'model.safetensors.index.json'))).close()
    await saveCheckpoint(at('forms'), options())
    await (await openCheckpoint(at('forms', 'model.safetensors'))).close()
    await mkdir(at('gguf'))
    await writeFile(at('gguf', 'b.gguf'), await readFile(await gguf()))
    const checkpoint = await openCheckpoint(at('gguf'))
    expect(checkpoint).toMatchObject({ format: 'gguf', path: at('gguf') })
    await checkpoint.close()
  })

  const files: [string, Record<string, string>, RegExp][] = [
    ['nothing', {}, /holds no checkpoint/],
    ['pickled weights', { 'config.json': '{}', 'pytorch_model.bin': '' }, /pytorch_model.bin is a pickled/],
    ['two GGUF files', { 'a.gguf': '', 'b.gguf': '' }, /holds 2 .gguf files; name one of them: a.gguf, b.gguf/],
    ['no config', { 'model.safetensors': '' }, /config.json: cannot be read: no such file/],
    ['a config without a type', { 'model.safetensors': '', 'config.json': '{}' }, /config.json: model_type is missing/],
    [
      'a config that is no object',
      { 'model.safetensors': '', 'config.json': '[]' },
      /config.json: expected a JSON object/,
    ],
  ]
  it.each(files)('says what is wrong with a folder that holds %s', async (_, contents, message) => {
    await rm(at('wrong'), { recursive: true, force: true })
    await mkdir(at('wrong'))
    for (const [name, text] of Object.entries(contents)) await writeFile(at('wrong', name), text)
    const error = await openCheckpoint(at('wrong')).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
  })

  it('says that a path does not exist or is something else', async () => {
    await expect(openCheckpoint(at('missing'))).rejects.toThrow(/missing: no such file or folder/)
    await writeFile(at('x.txt'), '')
    await expect(openCheckpoint(at('x.txt'))).rejects.toThrow(/x.txt: not a checkpoint/)
  })
})

describe('inspecting', () => {
  it('counts parameters, bytes and memory, and compares with what is expected', async () => {
    await saveCheckpoint(at('inspected'), options())
    const checkpoint = await openCheckpoint(at('inspected'))
    const expected = new Map([
      ['model.embed_tokens.weight', [4, 3]],
      ['lm_head.weight', [4, 2]],
    ])
    expect(await inspectCheckpoint(checkpoint, expected)).toEqual({
      path: at('inspected'),
      format: 'safetensors',
      architecture: 'LlamaForCausalLM',
      modelType: 'llama',
      parameters: { total: 10, embedding: 8, nonEmbedding: 2 },
      storedTypes: [{ dtype: 'F32', tensors: 2, parameters: 10, bytes: 40 }],
      storedBytes: 40,
      memory: { inferenceBytes: 40, trainingBytes: 160 },
      tokenizer: { model: 'BPE', vocabularySize: 3, chatTemplate: true },
      differences: {
        missing: ['lm_head.weight'],
        unexpected: ['model.norm.weight'],
        wrongShape: [{ name: 'model.embed_tokens.weight', found: [4, 2], expected: [4, 3] }],
      },
    })
    expect((await inspectCheckpoint(checkpoint)).differences).toBeUndefined()
    await checkpoint.close()
  })

  it('counts the embedding and the head of a LLaDA, and no layer, as embeddings', async () => {
    const checkpoint = await openCheckpoint(fileURLToPath(new URL('../../test/models/llada', import.meta.url)))
    const { parameters } = await inspectCheckpoint(checkpoint)
    expect(parameters).toEqual({ total: 21664, embedding: 2 * 96 * 32, nonEmbedding: 21664 - 2 * 96 * 32 })
    await checkpoint.close()
  })

  it('describes a GGUF file whose tokenizer is not supported', async () => {
    const checkpoint = await openCheckpoint(await gguf({ 'tokenizer.ggml.pre': { string: 'viking' } }))
    const info = await inspectCheckpoint(checkpoint)
    expect(info.tokenizer).toMatch(/"viking" is not supported/)
    expect(info.parameters.total).toBe(160 + 24 + 64 + 32 + 32 + 64 + 3 * 128)
    await checkpoint.close()
  })
})
