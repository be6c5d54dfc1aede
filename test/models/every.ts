// A tiny model of every architecture that is registered. Used by tests only.
import { createModel, supportedModelTypes } from '../../src/models/index.ts'
import type { Model } from '../../src/models/types.ts'

/** The keys of every family's config.json; each reads its own. */
const sizes = {
  vocab_size: 40,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 64,
  attention_bias: true,
  tie_word_embeddings: false,
  mask_token_id: 39,
  block_size: 4,
  // Mixtures of experts.
  num_experts: 4,
  num_experts_per_tok: 2,
  moe_intermediate_size: 16,
  num_shared_experts: 1,
  first_k_dense_replace: 1,
  n_group: 2,
  topk_group: 1,
  moe_router_enable_expert_bias: true,
  partial_rotary_factor: 0.5,
  // LLaDA.
  d_model: 32,
  mlp_hidden_size: 48,
  n_layers: 2,
  n_heads: 4,
  n_kv_heads: 2,
  max_sequence_length: 64,
}

export const tinyModels = (): Model[] => supportedModelTypes.map((model_type) => createModel({ model_type, ...sizes }))
