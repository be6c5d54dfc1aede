// What GGUF's dense architectures are in Hugging Face terms: config, tensor names, row order. Knows nothing about bytes.
import { type ModelConfig, UserError } from '../core/types.ts'
import type { GgufFile } from './gguf.ts'
import { ggufSettings, shortestDecimal } from './gguf-settings.ts'
import { tokenId } from './gguf-tokenizer.ts'
import { llama3RopeScaling } from './llama3-rope.ts'

/** The rotary frequency divisors of Llama 3 are stored as a tensor, not as settings. */
const ROPE_FACTORS = 'rope_freqs.weight'

/** GGUF's names of modules -> Hugging Face's; those of a layer are relative to `blk.{i}` and `{layers}.{i}`. */
interface Names {
  layers: string
  top: Readonly<Record<string, string>>
  layer: Readonly<Record<string, string>>
}

const llamaNames: Names = {
  layers: 'model.layers',
  top: { token_embd: 'model.embed_tokens', output_norm: 'model.norm', output: 'lm_head' },
  layer: {
    attn_norm: 'input_layernorm',
    attn_q: 'self_attn.q_proj',
    attn_k: 'self_attn.k_proj',
    attn_v: 'self_attn.v_proj',
    attn_q_norm: 'self_attn.q_norm',
    attn_k_norm: 'self_attn.k_norm',
    attn_output: 'self_attn.o_proj',
    ffn_norm: 'post_attention_layernorm',
    ffn_gate: 'mlp.gate_proj',
    ffn_up: 'mlp.up_proj',
    ffn_down: 'mlp.down_proj',
  },
}

const lladaNames: Names = {
  layers: 'model.transformer.blocks',
  top: {
    token_embd: 'model.transformer.wte',
    output_norm: 'model.transformer.ln_f',
    output: 'model.transformer.ff_out',
  },
  layer: {
    attn_norm: 'attn_norm',
    attn_q: 'q_proj',
    attn_k: 'k_proj',
    attn_v: 'v_proj',
    attn_output: 'attn_out',
    ffn_norm: 'ff_norm',
    ffn_gate: 'ff_proj',
    ffn_up: 'up_proj',
    ffn_down: 'ff_out',
  },
}

interface Architecture {
  /** `architectures[0]` of the Hugging Face config. */
  className: string
  names: Names
  /** llama.cpp reordered the rows of query and key projections; see `restoreRotaryRows`. */
  reordered: boolean
  /** The config of its `model_type`, from what all have. */
  config(common: CommonConfig, file: GgufFile): ModelConfig
}

/** By `general.architecture`. */
const architectures: Readonly<Record<string, Architecture>> = {
  llama: {
    className: 'LlamaForCausalLM',
    names: llamaNames,
    reordered: true,
    config: (common, { tensors }) => ({
      model_type: 'llama',
      ...common,
      attention_bias: tensors.has('blk.0.attn_q.bias'),
      mlp_bias: tensors.has('blk.0.ffn_gate.bias'),
    }),
  },
  qwen2: {
    className: 'Qwen2ForCausalLM',
    names: llamaNames,
    reordered: false,
    config: (common) => ({ model_type: 'qwen2', ...common }),
  },
  qwen3: {
    className: 'Qwen3ForCausalLM',
    names: llamaNames,
    reordered: false,
    config: (common, { tensors }) => ({
      model_type: 'qwen3',
      ...common,
      attention_bias: tensors.has('blk.0.attn_q.bias'),
    }),
  },
  dream: {
    className: 'DreamModel',
    names: llamaNames,
    reordered: false,
    config: (common, file) => ({ model_type: 'Dream', ...common, ...diffusionSettings(file) }),
  },
  llada: {
    className: 'LLaDAModelLM',
    names: lladaNames,
    reordered: true,
    config: (common, file) => ({
      model_type: 'llada',
      activation_type: common.hidden_act,
      d_model: common.hidden_size,
      mlp_hidden_size: common.intermediate_size,
      n_layers: common.num_hidden_layers,
      n_heads: common.num_attention_heads,
      n_kv_heads: common.num_key_value_heads,
      rms_norm_eps: common.rms_norm_eps,
      rope_theta: common.rope_theta,
      rope_scaling: common.rope_scaling,
      max_sequence_length: common.max_position_embeddings,
      vocab_size: common.vocab_size,
      weight_tying: common.tie_word_embeddings,
      include_qkv_bias: file.tensors.has('blk.0.attn_q.bias'),
      ...diffusionSettings(file),
    }),
  },
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

/** The rotary scaling as llama.cpp reads it: linear where the file has a factor and says no more, under its older name too. */
const ropeScaling = async (
  file: GgufFile,
  architecture: string,
  headDim: number,
  theta: number,
): Promise<Record<string, unknown> | undefined> => {
  const { path, metadata } = file
  const { number, text, count, fail } = ggufSettings(path, metadata)
  const scaling = `${architecture}.rope.scaling`
  const type = text(`${scaling}.type`) ?? 'linear'
  if (type !== 'none' && type !== 'linear' && type !== 'yarn')
    fail(`${scaling}.type`, `${JSON.stringify(type)} is not supported`)
  const given = number(`${scaling}.factor`) ?? number(`${architecture}.rope.scale_linear`) ?? 0
  if (given < 0) fail(`${scaling}.factor`, `${given} is below 0`)
  const factor = given === 0 || type === 'none' ? 1 : shortestDecimal(given)
  if (file.tensors.has(ROPE_FACTORS)) {
    const factors = await file.read(ROPE_FACTORS)
    const llama3 = llama3RopeScaling(factors, headDim, theta)
    if (llama3 === undefined)
      throw new UserError(`${path}: tensor "${ROPE_FACTORS}": these factors are not a Llama 3 rope scaling`)
    if (llama3 !== 'none') {
      if (factor !== 1) fail(`${scaling}.factor`, `${factor} besides the factors of tensor "${ROPE_FACTORS}"`)
      return llama3
    }
  }
  if (type === 'yarn') {
    const original = count(`${scaling}.original_context_length`)
    return known({ rope_type: 'yarn', factor, original_max_position_embeddings: original })
  }
  return factor === 1 ? undefined : { rope_type: 'linear', factor }
}

const known = (config: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined))

/** How a masked diffusion model is decoded, as far as the file says so. */
const diffusionSettings = ({ path, metadata }: GgufFile): Record<string, unknown> => {
  const shift = ggufSettings(path, metadata).flag('diffusion.shift_logits')
  return known({
    mask_token_id: tokenId(metadata, 'mask'),
    same_token_labels: shift === undefined ? undefined : !shift,
  })
}

type CommonConfig = Awaited<ReturnType<typeof commonConfig>>

/** What the configs of all architectures say, under the keys of most. */
const commonConfig = async (file: GgufFile, architecture: string) => {
  const { path, metadata, tensors } = file
  const { number, count, requiredCount, countOfLayers, fail } = ggufSettings(path, metadata)
  const key = (name: string) => `${architecture}.${name}`
  if ((number(key('expert_count')) ?? 0) > 0)
    throw new UserError(`${path}: a ${architecture} with experts is not supported`)

  const embedding = tensors.get('token_embd.weight')
  if (embedding === undefined || embedding.shape.length !== 2)
    throw new UserError(`${path}: tensor "token_embd.weight" is missing or not a matrix`)
  const hidden = requiredCount(key('embedding_length'))
  const layers = requiredCount(key('block_count'))
  const ofLayers = (name: string): number => countOfLayers(key(name), layers) ?? fail(key(name), 'is missing')
  const heads = ofLayers('attention.head_count')
  const headDim = count(key('attention.key_length')) ?? hidden / heads
  if (!Number.isInteger(headDim) || headDim % 2 !== 0)
    throw new UserError(`${path}: ${heads} heads of an embedding of ${hidden} have no even whole size`)
  const valueDim = count(key('attention.value_length')) ?? headDim
  if (valueDim !== headDim)
    fail(key('attention.value_length'), `${valueDim}, where keys have ${headDim}, is not supported`)
  const rotaryKey = key('rope.dimension_count')
  const rotary = count(rotaryKey) ?? headDim
  if (rotary !== headDim)
    throw new UserError(`${path}: metadata "${rotaryKey}": ${rotary} of ${headDim} is not supported`)
  const epsilonKey = key('attention.layer_norm_rms_epsilon')
  const epsilon = number(epsilonKey) ?? fail(epsilonKey, 'is missing')
  // Without a setting llama.cpp uses Llama 1's and 2's value.
  const theta = shortestDecimal(number(key('rope.freq_base')) ?? 10000)
  const scaling = await ropeScaling(file, architecture, headDim, theta)
  return {
    hidden_act: 'silu',
    hidden_size: hidden,
    intermediate_size: ofLayers('feed_forward_length'),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: countOfLayers(key('attention.head_count_kv'), layers) ?? heads,
    head_dim: headDim,
    rms_norm_eps: shortestDecimal(epsilon),
    rope_theta: theta,
    rope_scaling: scaling ?? null,
    max_position_embeddings: requiredCount(key('context_length')),
    vocab_size: embedding.shape[0]!,
    tie_word_embeddings: !tensors.has('output.weight'),
  }
}

export interface GgufModel {
  config: ModelConfig
  headDim: number
  /** The Hugging Face name of a tensor; undefined for one that became part of the config; the same name if unknown. */
  huggingFaceName(name: string): string | undefined
  /** Heads whose rows of this tensor llama.cpp reordered; undefined for any other tensor. */
  reorderedHeads(name: string): number | undefined
}

/**
 * The model in a GGUF file. Throws UserError when its architecture is not supported, a setting is missing or absurd,
 * and for a mixture of experts under the name of a dense architecture (GGUF calls Mixtral a llama).
 */
export const ggufModel = async (file: GgufFile): Promise<GgufModel> => {
  const { path, metadata } = file
  const name = ggufSettings(path, metadata).text('general.architecture') ?? null
  const supported = Object.keys(architectures)
  if (name === null || !supported.includes(name))
    throw new UserError(
      `${path}: metadata "general.architecture": ${JSON.stringify(name)} is not supported in GGUF files; supported: ${supported.join(', ')}`,
    )
  const { className, names, reordered, config } = architectures[name]!
  const common = await commonConfig(file, name)
  const ids = {
    bos_token_id: tokenId(metadata, 'bos'),
    eos_token_id: tokenId(metadata, 'eos'),
    pad_token_id: tokenId(metadata, 'padding'),
  }
  const layerPart = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/
  return {
    config: { architectures: [className], ...config(common, file), ...known(ids) },
    headDim: common.head_dim,
    huggingFaceName(name) {
      if (name === ROPE_FACTORS) return undefined
      const top = /^(\w+)\.weight$/.exec(name)?.[1]
      if (top !== undefined) return Object.hasOwn(names.top, top) ? `${names.top[top]}.weight` : name
      const [, layer, part, kind] = layerPart.exec(name) ?? []
      if (part === undefined || !Object.hasOwn(names.layer, part)) return name
      return `${names.layers}.${layer}.${names.layer[part]}.${kind}`
    },
    reorderedHeads(name) {
      const part = reordered ? layerPart.exec(name)?.[2] : undefined
      if (part === 'attn_q') return common.num_attention_heads
      return part === 'attn_k' ? common.num_key_value_heads : undefined
    },
  }
}
