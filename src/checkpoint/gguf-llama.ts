// What GGUF's architecture "llama" is in Hugging Face terms: config, tensor names, row order. Knows nothing about bytes.
import { type ModelConfig, UserError } from '../types.ts'
import type { GgufFile, GgufMetadata } from './gguf.ts'
import { llama3RopeScaling } from './llama3-rope.ts'

/** The rotary frequency divisors of Llama 3 are stored as a tensor, not as settings. */
const ROPE_FACTORS = 'rope_freqs.weight'

const topLevelNames: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}

const layerNames: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
}

/** The Hugging Face name of a tensor; undefined for one that becomes part of the config; the same name if unknown. */
export const huggingFaceName = (name: string): string | undefined => {
  if (name === ROPE_FACTORS) return undefined
  if (Object.hasOwn(topLevelNames, name)) return topLevelNames[name]
  const [, layer, part, kind] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? []
  if (layer === undefined || part === undefined || !Object.hasOwn(layerNames, part)) return name
  return `model.layers.${layer}.${layerNames[part]}.${kind}`
}

/**
 * Undoes, in place, llama.cpp's reordering of the rows of a query or key projection [heads * headDim, ...] (weight or
 * bias), or of an array that stores such rows one after the other. llama.cpp rotates the neighbours (2i, 2i+1) of a head, Hugging Face the pairs (i, i + headDim/2), so the
 * GGUF converter interleaved the two halves of every head.
 */
export const restoreRotaryRows = (values: Float32Array | Uint8Array, heads: number, headDim: number): void => {
  const row = values.length / (heads * headDim)
  const half = headDim / 2
  const scratch = values.slice(0, headDim * row)
  for (let head = 0; head < heads; head++) {
    const block = values.subarray(head * headDim * row, (head + 1) * headDim * row)
    scratch.set(block)
    for (let i = 0; i < half; i++) {
      block.set(scratch.subarray(2 * i * row, (2 * i + 1) * row), i * row)
      block.set(scratch.subarray((2 * i + 1) * row, (2 * i + 2) * row), (half + i) * row)
    }
  }
}

/** Heads whose rows of this tensor llama.cpp reordered; undefined for any other tensor. */
export const reorderedHeads = (name: string, config: LlamaConfig): number | undefined => {
  if (/^blk\.\d+\.attn_q\.(weight|bias)$/.test(name)) return config.num_attention_heads
  if (/^blk\.\d+\.attn_k\.(weight|bias)$/.test(name)) return config.num_key_value_heads
  return undefined
}

/** Reads settings of a GGUF file, naming file and key where one is missing or not what it should be. */
const settings = (path: string, metadata: GgufMetadata) => {
  const number = (key: string): number | undefined => {
    const value = metadata.get(key)
    if (value === undefined || (typeof value === 'number' && Number.isFinite(value))) return value
    throw new UserError(`${path}: metadata "${key}": expected a number`)
  }
  const required = <T>(key: string, value: T | undefined): T => {
    if (value === undefined) throw new UserError(`${path}: metadata "${key}" is missing`)
    return value
  }
  const count = (key: string): number | undefined => {
    const value = number(key)
    if (value === undefined || (Number.isSafeInteger(value) && value > 0)) return value
    throw new UserError(`${path}: metadata "${key}": ${value} is not a positive integer`)
  }
  const tokenId = (key: string): number | undefined => {
    const value = number(`tokenizer.ggml.${key}`)
    if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) return value
    throw new UserError(`${path}: metadata "tokenizer.ggml.${key}": ${value} is not a token id`)
  }
  return { number, count, tokenId, requiredCount: (key: string) => required(key, count(key)), required }
}

/** The shortest decimal that is the same float32: 1e-5 is stored as 0.000009999999747378752. */
const shortestDecimal = (value: number): number => {
  for (let digits = 1; digits < 10; digits++) {
    const rounded = Number(value.toPrecision(digits))
    if (Math.fround(rounded) === Math.fround(value)) return rounded
  }
  return value
}

export type LlamaConfig = ModelConfig & {
  num_attention_heads: number
  num_key_value_heads: number
  head_dim: number
}

const ropeScaling = async (
  file: GgufFile,
  headDim: number,
  theta: number,
): Promise<Record<string, unknown> | undefined> => {
  const { path, metadata } = file
  const { number, required, count } = settings(path, metadata)
  if (file.tensors.has(ROPE_FACTORS)) {
    const factors = await file.read(ROPE_FACTORS)
    const scaling = llama3RopeScaling(factors, headDim, theta)
    if (scaling === undefined)
      throw new UserError(`${path}: tensor "${ROPE_FACTORS}": these factors are not a Llama 3 rope scaling`)
    return scaling === 'none' ? undefined : scaling
  }
  const type = metadata.get('llama.rope.scaling.type') ?? 'none'
  if (type === 'none') return undefined
  if (type !== 'linear' && type !== 'yarn')
    throw new UserError(`${path}: metadata "llama.rope.scaling.type": ${JSON.stringify(type)} is not supported`)
  const key = 'llama.rope.scaling.factor'
  const factor = shortestDecimal(required(key, number(key)))
  if (type === 'linear') return { rope_type: 'linear', factor }
  const original = count('llama.rope.scaling.original_context_length')
  return {
    rope_type: 'yarn',
    factor,
    ...(original === undefined ? {} : { original_max_position_embeddings: original }),
  }
}

/**
 * The Hugging Face config of a GGUF file of architecture `llama`. Throws UserError when a setting is missing or absurd,
 * and for a mixture of experts, which GGUF calls llama too.
 */
export const llamaConfig = async (file: GgufFile): Promise<LlamaConfig> => {
  const { path, metadata, tensors } = file
  const { number, count, tokenId, requiredCount, required } = settings(path, metadata)
  if ((number('llama.expert_count') ?? 0) > 0)
    throw new UserError(`${path}: a llama with experts (Mixtral) is not supported`)

  const embedding = tensors.get('token_embd.weight')
  if (embedding === undefined || embedding.shape.length !== 2)
    throw new UserError(`${path}: tensor "token_embd.weight" is missing or not a matrix`)
  const hidden = requiredCount('llama.embedding_length')
  const heads = requiredCount('llama.attention.head_count')
  const headDim = count('llama.attention.key_length') ?? hidden / heads
  if (!Number.isInteger(headDim) || headDim % 2 !== 0)
    throw new UserError(`${path}: ${heads} heads of an embedding of ${hidden} have no even whole size`)
  const rotary = count('llama.rope.dimension_count') ?? headDim
  if (rotary !== headDim)
    throw new UserError(`${path}: metadata "llama.rope.dimension_count": ${rotary} of ${headDim} is not supported`)
  const epsilonKey = 'llama.attention.layer_norm_rms_epsilon'
  // Without a setting llama.cpp uses Llama 1's and 2's value.
  const theta = shortestDecimal(number('llama.rope.freq_base') ?? 10000)
  const scaling = await ropeScaling(file, headDim, theta)
  const ids = {
    bos_token_id: tokenId('bos_token_id'),
    eos_token_id: tokenId('eos_token_id'),
    pad_token_id: tokenId('padding_token_id'),
  }
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    hidden_size: hidden,
    intermediate_size: requiredCount('llama.feed_forward_length'),
    num_hidden_layers: requiredCount('llama.block_count'),
    num_attention_heads: heads,
    num_key_value_heads: count('llama.attention.head_count_kv') ?? heads,
    head_dim: headDim,
    rms_norm_eps: shortestDecimal(required(epsilonKey, number(epsilonKey))),
    rope_theta: theta,
    rope_scaling: scaling ?? null,
    max_position_embeddings: requiredCount('llama.context_length'),
    vocab_size: embedding.shape[0]!,
    tie_word_embeddings: !tensors.has('output.weight'),
    attention_bias: tensors.has('blk.0.attn_q.bias'),
    mlp_bias: tensors.has('blk.0.ffn_gate.bias'),
    ...Object.fromEntries(Object.entries(ids).filter(([, id]) => id !== undefined)),
  }
}
