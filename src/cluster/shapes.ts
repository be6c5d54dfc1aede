// config.json of models that are planned for before anyone has fetched them: LLaDA2.0, as dFactory's configs have it.
import type { ModelConfig } from '../core/types.ts'

const llada2: ModelConfig = {
  model_type: 'llada2_moe',
  vocab_size: 157_184,
  num_key_value_heads: 4,
  head_dim: 128,
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
  rope_theta: 600_000,
  partial_rotary_factor: 0.5,
  rms_norm_eps: 1e-6,
  max_position_embeddings: 16_384,
  tie_word_embeddings: false,
}

/** By the names that `cluster plan` takes. */
export const knownShapes: Readonly<Record<string, ModelConfig>> = {
  'llada2-mini': {
    ...llada2,
    hidden_size: 2048,
    num_hidden_layers: 20,
    num_attention_heads: 16,
    intermediate_size: 5120,
    moe_intermediate_size: 512,
  },
  'llada2-flash': {
    ...llada2,
    hidden_size: 4096,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    intermediate_size: 9216,
    moe_intermediate_size: 1024,
  },
}
