// BailingMoeV2 (Ling 2.0) and LLaDA2-MoE, which continues from it: a mixture of experts whose router scores by sigmoid and
// chooses from groups; fused projections, a norm over each head, rotary embedding of half of it. Layers for multi-token
// prediction, where a Ling checkpoint has some, are passed over, and training leaves them out.
import type { ModelConfig } from '../core/types.ts'
import { reader } from './config.ts'
import { createDecoder, type DecoderNames } from './decoder.ts'
import { denseMlp } from './mlp.ts'
import { checkRouter, type MoeOptions, moeMlp } from './moe.ts'
import type { Architecture, Model } from './types.ts'

const bailingNames: DecoderNames = {
  embedding: 'model.word_embeddings',
  layers: 'model.layers',
  attentionNorm: 'input_layernorm',
  projections: { fused: 'attention.query_key_value' },
  headNorms: { query: 'attention.query_layernorm', key: 'attention.key_layernorm' },
  output: 'attention.dense',
  mlpNorm: 'post_attention_layernorm',
  finalNorm: 'model.norm',
  head: 'lm_head',
}

/** Most experts of a layer: each is traced. */
const MOST_EXPERTS = 4096

function create(config: ModelConfig): Model {
  const read = reader(config)
  read.must('use_qk_norm', true)
  read.must('use_sliding_window', false)
  read.must('norm_head', false)
  read.must('score_function', 'sigmoid')
  const bias = read.flag('use_bias', false)
  const options: MoeOptions = {
    experts: read.size('num_experts', undefined, MOST_EXPERTS),
    topK: read.size('num_experts_per_tok'),
    intermediate: read.size('moe_intermediate_size'),
    score: 'sigmoid',
    normalize: read.flag('norm_topk_prob', true),
    scale: read.positive('routed_scaling_factor', 1),
    groups: read.size('n_group', 1),
    topGroups: read.size('topk_group', 1),
    bias: read.flag('moe_router_enable_expert_bias', false),
    shared: config.num_shared_experts ? read.size('num_shared_experts') : 0,
  }
  checkRouter(config, options)
  const dense = config.first_k_dense_replace ? read.size('first_k_dense_replace') : 0
  const intermediate = dense > 0 ? read.size('intermediate_size') : 0
  return createDecoder(config, {
    names: bailingNames,
    qkvBias: read.flag('use_qkv_bias', false),
    outputBias: bias,
    mlp: (layer, hidden) => (layer < dense ? denseMlp(hidden, intermediate) : moeMlp(hidden, options)),
  })
}

/** Keys that describe layers for multi-token prediction. */
const MTP_LAYERS = 'num_nextn_predict_layers'
const mtpKeys = [MTP_LAYERS, 'mtp_loss_scaling_factor']

function withoutMtp(config: ModelConfig): { config: ModelConfig; dropped?: string } {
  const left = Object.fromEntries(Object.entries(config).filter(([key]) => !mtpKeys.includes(key))) as ModelConfig
  const layers = config[MTP_LAYERS]
  if (typeof layers !== 'number' || layers === 0) return { config: left }
  return { config: left, dropped: `layers for multi-token prediction (${MTP_LAYERS}: ${layers})` }
}

/** Ling's `auto_map` names Python files that a LLaDA2 model does not have. */
function asLlada2({ auto_map: _, ...config }: ModelConfig): ModelConfig {
  return { ...config, model_type: 'llada2_moe', architectures: ['LLaDA2MoeModelLM'] }
}

export const bailingMoeV2: Architecture = {
  modelType: 'bailing_moe_v2',
  create,
  trained(config, objective) {
    const { config: left, ...rest } = withoutMtp(config)
    return { ...rest, config: objective === 'diffusion' ? asLlada2(left) : left }
  },
}

/** LLaDA2's mask token in the vocabulary of Ling 2.0, and its block size; dFactory's configs name neither. */
const [MASK_TOKEN, BLOCK_SIZE] = [156895, 32]

function createLlada2(config: ModelConfig): Model {
  const { mask_token_id: mask, vocab_size: rows } = config
  const named = typeof mask === 'number' || typeof rows !== 'number' || rows <= MASK_TOKEN
  return create(named ? config : { ...config, mask_token_id: MASK_TOKEN, block_size: config.block_size ?? BLOCK_SIZE })
}

export const llada2Moe: Architecture = { modelType: 'llada2_moe', create: createLlada2, trained: withoutMtp }

/** As dFactory stores LLaDA2 for training: the matrices of all experts merged into one, which reading has split again. */
export const llada2MoeVeomni: Architecture = {
  modelType: 'llada2_moe_veomni',
  create: (config) => createLlada2(asLlada2(config)),
}
