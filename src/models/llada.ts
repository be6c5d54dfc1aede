// LLaDA 8B: a masked diffusion model trained from scratch over the whole text. The decoder itself; the names of its
// tensors and of its settings are those of OLMo, whose code it grew from.
import { reader } from './config.ts'
import { createDecoder, type DecoderNames } from './decoder.ts'
import { denseMlp } from './mlp.ts'
import type { Architecture } from './types.ts'

const names: DecoderNames = {
  embedding: 'model.transformer.wte',
  layers: 'model.transformer.blocks',
  attentionNorm: 'attn_norm',
  projections: { query: 'q_proj', key: 'k_proj', value: 'v_proj' },
  output: 'attn_out',
  mlpNorm: 'ff_norm',
  finalNorm: 'model.transformer.ln_f',
  head: 'model.transformer.ff_out',
}

const keys = {
  hiddenSize: 'd_model',
  layers: 'n_layers',
  heads: 'n_heads',
  kvHeads: 'n_kv_heads',
  maxPositions: 'max_sequence_length',
  tied: 'weight_tying',
  activation: 'activation_type',
}

/** Settings of the code that no published LLaDA uses otherwise. */
const fixed = {
  block_type: 'llama',
  block_group_size: 1,
  layer_norm_type: 'rms',
  attention_layer_norm: false,
  bias_for_layer_norm: false,
  include_bias: false,
  input_emb_norm: false,
  multi_query_attention: false,
  rope: true,
  alibi: false,
  scale_logits: false,
}

export const llada: Architecture = {
  modelType: 'llada',
  create(config) {
    const read = reader(config)
    for (const [key, value] of Object.entries(fixed)) read.must(key, value)
    return createDecoder(config, {
      names,
      // The rows of the embedding, where they are more than the tokens.
      keys: { ...keys, vocabSize: config.embedding_size == null ? 'vocab_size' : 'embedding_size' },
      qkvBias: read.flag('include_qkv_bias', false),
      mlp: (_, hiddenSize) =>
        denseMlp(hiddenSize, read.size('mlp_hidden_size'), {
          names: { gate: 'ff_proj', up: 'up_proj', down: 'ff_out' },
        }),
    })
  },
}
