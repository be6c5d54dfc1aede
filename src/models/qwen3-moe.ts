// Qwen3-MoE: Qwen3 with a mixture of experts, chosen by softmax, in most of its layers.
import { ConfigError, type ModelConfig } from '../core/types.ts'
import { reader } from './config.ts'
import { createDecoder } from './decoder.ts'
import { denseMlp } from './mlp.ts'
import { checkRouter, type MoeOptions, moeMlp } from './moe.ts'
import { qwen3Names } from './qwen3.ts'
import type { Architecture } from './types.ts'

/** Most experts of a layer: each is traced. */
const MOST_EXPERTS = 4096

export const qwen3Moe: Architecture = {
  modelType: 'qwen3_moe',
  create(config) {
    const read = reader(config)
    read.must('use_sliding_window', false)
    const bias = read.flag('attention_bias', false)
    const options: MoeOptions = {
      experts: read.size('num_experts', 128, MOST_EXPERTS),
      topK: read.size('num_experts_per_tok', 8),
      intermediate: read.size('moe_intermediate_size', 768),
      score: 'softmax',
      normalize: read.flag('norm_topk_prob', false),
    }
    checkRouter(config, options)
    const step = read.size('decoder_sparse_step', 1)
    const dense = denseLayers(config)
    return createDecoder(config, {
      names: qwen3Names,
      qkvBias: bias,
      outputBias: bias,
      mlp: (layer, hidden) =>
        dense.includes(layer) || (layer + 1) % step !== 0
          ? denseMlp(hidden, read.size('intermediate_size'))
          : moeMlp(hidden, options),
    })
  },
}

function denseLayers({ mlp_only_layers: layers = [] }: ModelConfig): number[] {
  if (!Array.isArray(layers) || layers.some((layer) => !Number.isInteger(layer)))
    throw new ConfigError(`mlp_only_layers must be a list of layers, got ${JSON.stringify(layers)}`)
  return layers
}
