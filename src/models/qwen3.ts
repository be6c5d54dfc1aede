// Qwen3: the decoder with a norm over each head of the queries and of the keys.
import { reader } from './config.ts'
import { createDecoder, type DecoderNames, llamaNames } from './decoder.ts'
import type { Architecture } from './types.ts'

export const qwen3Names: DecoderNames = {
  ...llamaNames,
  headNorms: { query: 'self_attn.q_norm', key: 'self_attn.k_norm' },
}

export const qwen3: Architecture = {
  modelType: 'qwen3',
  create(config) {
    const read = reader(config)
    read.must('use_sliding_window', false)
    const bias = read.flag('attention_bias', false)
    return createDecoder(config, { names: qwen3Names, qkvBias: bias, outputBias: bias })
  },
}
